//! One table of packets, run through the library and through the kernel's `BPF_PROG_TEST_RUN`: what goes in, why it
//! lives or dies, what comes out.

mod cases;
mod estate;
mod frames;
mod fuzz;
mod rules;
mod sessions;

use estate::{Estate, Outcome, Way};

#[test]
fn every_case_ends_as_the_table_says_in_the_library() {
    let cases = cases::all();
    for case in &cases {
        let outcome = Estate::new().library(case.way, &case.frame);
        assert_eq!(outcome.summary(), case.expected(), "{}", case.name);
    }
}

#[test]
fn every_case_ends_as_the_table_says_in_the_kernel() {
    let mut kernel = Estate::new().kernel("packets-table");
    for case in &cases::all() {
        let outcome = kernel.run(case.way, &case.frame);
        assert_eq!(outcome.summary(), case.expected(), "{}", case.name);
    }
}

#[test]
fn a_case_that_is_cut_anywhere_is_dropped_or_passes_untouched_or_ends_alike() {
    let mut kernel = Estate::new().kernel("packets-cut");
    // The kernel makes no cut packets itself, and refuses to try them on its way out.
    let coming = cases::all().into_iter().filter(|case| case.way == Way::In);
    for case in coming {
        for length in 14..case.frame.len() {
            let cut = &case.frame[..length];
            let library = Estate::new().library(case.way, cut);
            let in_kernel = kernel.run(case.way, cut);
            assert_eq!(library, in_kernel, "{} cut to {length}", case.name);
            if let Outcome::Pass { frame, .. } = &library {
                assert_eq!(frame, cut, "{} cut to {length}", case.name);
            }
        }
    }
}

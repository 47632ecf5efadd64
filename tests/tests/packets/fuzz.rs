//! Frames that nobody would send: the library and the kernel must still agree, and nothing damaged may be sent on.

use std::cell::RefCell;

use proptest::{prelude::*, test_runner::TestRunner};

use super::{
    cases,
    estate::{Estate, Outcome, Way},
};

/// How often each property is tried.
const TRIES: u32 = 20_000;

#[derive(Clone, Debug)]
struct Damage {
    case: usize,
    cut: u16,
    bytes: Vec<(u16, u8)>,
}

fn damage(cases: usize) -> impl Strategy<Value = Damage> {
    (
        0..cases,
        prop_oneof![3 => Just(u16::MAX), 1 => 14_u16..200],
        proptest::collection::vec((12_u16..90, any::<u8>()), 0..6),
    )
        .prop_map(|(case, cut, bytes)| Damage { case, cut, bytes })
}

#[test]
fn damaged_frames_end_alike_in_the_library_and_in_the_kernel() {
    let cases = cases::all();
    let kernel = RefCell::new(Estate::new().kernel("packets-fuzz"));
    let config = ProptestConfig {
        cases: TRIES,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    TestRunner::new(config)
        .run(&damage(cases.len()), |damage| {
            let case = &cases[damage.case];
            let mut frame = case.frame.clone();
            for (at, byte) in &damage.bytes {
                if let Some(place) = frame.get_mut(usize::from(*at)) {
                    *place = *byte;
                }
            }
            if case.way == Way::In {
                frame.truncate(usize::from(damage.cut).max(14));
            }
            let library = Estate::new().library(case.way, &frame);
            let in_kernel = kernel.borrow_mut().run(case.way, &frame);
            prop_assert_eq!(&library, &in_kernel, "{:02x?}", frame);
            if let Outcome::Transmit {
                frame: sent,
                reason,
            } = &library
            {
                let is_answer = ["reset", "refused"].contains(&reason.as_str());
                prop_assert!(sent.len() == frame.len() || is_answer && sent.len() < frame.len());
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

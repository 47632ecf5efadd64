//! Loads the object and says what the verifier says.
use aya::{
    EbpfLoader, VerifierLogLevel,
    programs::{SchedClassifier, Xdp},
};
fn main() {
    let path = std::env::args().nth(1).unwrap();
    let mut e = EbpfLoader::new()
        .verifier_log_level(if std::env::var("V").is_ok() {
            VerifierLogLevel::VERBOSE
        } else {
            VerifierLogLevel::STATS
        })
        .load_file(path)
        .unwrap();
    if std::env::var("E").is_err() {
        let p: &mut Xdp = e.program_mut("ingress").unwrap().try_into().unwrap();
        if let Err(x) = p.load() {
            let s = format!("{x}");
            let l: Vec<_> = s.lines().collect();
            for l in l.iter().rev().take(60).rev() {
                println!("{l}");
            }
        } else {
            let i = p.info().unwrap();
            println!(
                "ingress ok: xlated {:?} jited {:?} verified {:?}",
                i.size_translated(),
                i.size_jitted(),
                i.verified_instruction_count()
            );
        }
    }
    let p: &mut SchedClassifier = e.program_mut("egress").unwrap().try_into().unwrap();
    if let Err(x) = p.load() {
        let s = format!("{x}");
        let l: Vec<_> = s.lines().collect();
        for l in l.iter().rev().take(60).rev() {
            println!("{l}");
        }
    } else {
        let i = p.info().unwrap();
        println!(
            "egress ok: xlated {:?} jited {:?} verified {:?}",
            i.size_translated(),
            i.size_jitted(),
            i.verified_instruction_count()
        );
    }
}

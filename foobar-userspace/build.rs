//! Embeds the BPF object that `$FOOBAR_EBPF_OBJECT` names, or an empty one.

use std::{env, fs, path::PathBuf};

fn main() {
    println!("cargo::rerun-if-env-changed=FOOBAR_EBPF_OBJECT");
    let embedded =
        PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("foobar-ebpf.o");
    match env::var_os("FOOBAR_EBPF_OBJECT") {
        Some(object) => {
            let object = PathBuf::from(object);
            println!("cargo::rerun-if-changed={}", object.display());
            if let Err(error) = fs::copy(&object, &embedded) {
                panic!(
                    "cannot read $FOOBAR_EBPF_OBJECT {}: {error}",
                    object.display()
                );
            }
        }
        None => fs::write(&embedded, []).expect("OUT_DIR is writable"),
    }
}

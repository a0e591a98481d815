//! Manifests: what is accepted can be written again and says the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mover::repository::format::Manifest;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = Manifest::decode(bytes) {
        let again = manifest.encode().expect("what was read keeps to the limits");
        assert_eq!(Manifest::decode(&again).expect("what was written is read"), manifest);
    }
});

//! Every parser of the protocol, on whatever libFuzzer makes up. The checks are
//! `protocol::fuzz::fuzz_parsers`, which a property test of the crate runs too.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol::fuzz::fuzz_parsers(data));

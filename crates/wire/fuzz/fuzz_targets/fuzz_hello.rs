#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway_wire::hello::fuzz::fuzz_hello(data));

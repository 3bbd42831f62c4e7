#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway_wire::postgres::fuzz::fuzz_startup(data));

#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway_wire::proxy::fuzz::fuzz_proxy(data));

//! Refuses to build the bindings for a free-threaded CPython, which has no abi3. (PyO3 would go on,
//! with an extension for this one version whose kernels nobody has tested without the GIL.)

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "python")]
    if pyo3_build_config::get().target_abi().kind().is_free_threaded() {
        println!(
            "cargo::error=oxidet needs a CPython with the GIL: a free-threaded one has no stable \
             ABI (abi3), which the package is built for"
        );
    }
}

//! So that libtorch is found where it was when this was built, and with it what computes on a GPU.

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let Ok(folder) = std::env::var("DEP_TCH_LIBTORCH_LIB") else { return };
    println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
    // It registers itself when it is loaded, and the linker leaves out what nothing is asked of by name.
    if std::path::Path::new(&folder).join("libtorch_cuda.so").exists() {
        println!("cargo:rustc-link-arg=-Wl,--no-as-needed,-ltorch_cuda,--as-needed");
    }
}

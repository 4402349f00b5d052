//! Names the library as the loader's cache will know it: a later `dlopen("libcuda.so")` then finds
//! the copy that was opened by path.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcuda.so");
}

//! Many threads, many launches.

use cudarc::driver::sys;

use crate::client::{Module, context, launch};

#[test]
fn sixty_four_threads_have_streams_of_their_own() {
    const N: u32 = 100;
    let context = context();
    let module = Module::load();
    std::thread::scope(|scope| {
        for thread in 0..64u32 {
            let (context, module) = (&context, &module);
            scope.spawn(move || {
                context.bind_to_thread().unwrap();
                let stream = context.new_stream().unwrap();
                let add = module.function("add");
                let data = stream.clone_htod(&(0..N).collect::<Vec<u32>>()).unwrap();
                let (mut at, mut n, mut k) = (0u64, N, thread);
                {
                    use cudarc::driver::DevicePtr;
                    at += data.device_ptr(&stream).0;
                }
                for _ in 0..50 {
                    launch(add, 4, 32, stream.cu_stream(), &mut [&mut at, &mut n, &mut k]).unwrap();
                }
                stream.synchronize().unwrap();
                let expected: Vec<u32> = (0..N).map(|i| i + 50 * thread).collect();
                assert_eq!(stream.clone_dtoh(&data).unwrap(), expected);
            });
        }
    });
}

/// Resident memory of this process.
fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn a_million_small_launches_leave_nothing() {
    let name = "stress::a_million_small_launches_leave_nothing";
    if let Some(child) = crate::client::in_child(name, &[]) {
        let text = String::from_utf8_lossy(&child.stdout);
        println!("{}", text.lines().find(|line| line.contains("launches")).unwrap_or_default());
        return;
    }
    let context = context();
    let (module, stream) = (Module::load(), context.new_stream().unwrap());
    let (add, mut at, mut n, mut k) = (module.function("add"), 0, 32u32, 1u32);
    // SAFETY: live locals; the allocation has as many words.
    unsafe {
        sys::cuMemAlloc_v2(&mut at, 128).result().unwrap();
        sys::cuMemsetD32_v2(at, 0, 32).result().unwrap();
    }
    let mut run = |count: u32| {
        for _ in 0..count {
            launch(add, 1, 32, stream.cu_stream(), &mut [&mut at, &mut n, &mut k]).unwrap();
        }
    };
    const WARM_UP: u32 = 10_000;
    const LAUNCHES: u32 = 1_000_000;
    run(WARM_UP);
    let (before, start) = (resident_bytes(), std::time::Instant::now());
    run(LAUNCHES);
    let grown = resident_bytes().saturating_sub(before);
    println!("{LAUNCHES} launches in {:.1} s, {grown} bytes more", start.elapsed().as_secs_f64());
    // A leak of one byte a launch would be as much; the allocator's own drift is far less.
    assert!(grown < LAUNCHES as usize, "{grown} bytes");
    let mut out = [0u32; 32];
    // SAFETY: as many bytes.
    unsafe { sys::cuMemcpyDtoH_v2(out.as_mut_ptr().cast(), at, 128) }.result().unwrap();
    assert_eq!(out, [WARM_UP + LAUNCHES; 32]);
    // SAFETY: allocated above.
    unsafe { sys::cuMemFree_v2(at) }.result().unwrap();
}

//! What needs a process of its own: faults that stick, and leaks at its end.

use cudarc::driver::sys::{self, CUresult};

use crate::client::{Module, context, in_child, launch};

#[test]
fn a_fault_sticks_until_the_context_is_reset() {
    let Some(child) = in_child("process::a_fault_sticks_until_the_context_is_reset", &[]) else {
        let context = context();
        let (module, stream) = (Module::load(), context.new_stream().unwrap());
        let (wild, mut address) = (module.function("wild"), 16u64);
        let illegal = CUresult::CUDA_ERROR_ILLEGAL_ADDRESS;
        assert_eq!(launch(wild, 1, 1, stream.cu_stream(), &mut [&mut address]), Err(illegal));
        // SAFETY: live locals.
        unsafe {
            for _ in 0..2 {
                assert_eq!(sys::cuCtxSynchronize(), illegal);
                assert_eq!(sys::cuMemAlloc_v2(&mut address, 16), illegal);
                assert_eq!(sys::cuStreamSynchronize(stream.cu_stream()), illegal);
                assert_eq!(launch(wild, 1, 1, stream.cu_stream(), &mut [&mut address]), Err(illegal));
            }
            sys::cuDevicePrimaryCtxReset_v2(0).result().unwrap();
            sys::cuMemAlloc_v2(&mut address, 16).result().unwrap();
            launch(wild, 1, 1, stream.cu_stream(), &mut [&mut address]).unwrap();
            sys::cuMemFree_v2(address).result().unwrap();
        }
        return;
    };
    let text = String::from_utf8_lossy(&child.stderr);
    assert!(text.contains("wild") && text.contains("0x10"), "{text}");
}

#[test]
fn leaks_are_reported_when_the_context_ends() {
    let name = "process::leaks_are_reported_when_the_context_ends";
    let Some(child) = in_child(name, &[("VCUDA_CHECK", "memory")]) else {
        let context = context();
        let mut addresses = [0u64; 13];
        // SAFETY: live locals.
        unsafe {
            for (i, address) in addresses.iter_mut().enumerate() {
                sys::cuMemAlloc_v2(address, 100 + i).result().unwrap();
            }
            sys::cuMemFree_v2(addresses[0]).result().unwrap();
        }
        drop(context);
        let context = self::context();
        // Freed with its context: it begins none any more.
        // SAFETY: refused.
        let again = unsafe { sys::cuMemFree_v2(addresses[1]) };
        assert_eq!(again, CUresult::CUDA_ERROR_INVALID_VALUE);
        // The process's end reports what it leaves to a context that never ends.
        let mut address = 0;
        // SAFETY: a live local.
        unsafe { sys::cuMemAlloc_v2(&mut address, 4321) }.result().unwrap();
        std::mem::forget(context);
        return;
    };
    let text = String::from_utf8_lossy(&child.stderr);
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("leak")).collect();
    assert_eq!(lines.len(), 13, "{text}");
    assert!(lines[0].starts_with("vcuda: leak: 101 bytes of device memory at 0x"), "{text}");
    assert!(lines[9].starts_with("vcuda: leak: 110 bytes"), "{text}");
    assert_eq!(lines[10], format!("vcuda: leaks: {} bytes in 12 allocations", (101..=112).sum::<usize>()));
    assert!(lines[11].contains("4321 bytes"), "{text}");
    assert_eq!(lines[12], "vcuda: leaks: 4321 bytes in 1 allocations");
}

#[test]
fn without_checks_leaks_are_the_clients_own_affair() {
    let name = "process::without_checks_leaks_are_the_clients_own_affair";
    let Some(child) = in_child(name, &[]) else {
        let _context = context();
        let mut address = 0;
        // SAFETY: a live local.
        unsafe { sys::cuMemAlloc_v2(&mut address, 16) }.result().unwrap();
        return;
    };
    assert!(!String::from_utf8_lossy(&child.stderr).contains("leak"));
}

/// One warp waits at a barrier for two, the other for an mbarrier that nobody tells.
const STUCK: &str = "\
.version 8.0
.target sm_80
.address_size 64
.file 1 \"stuck.cu\"
.visible .entry stuck()
{
    .reg .pred %p;
    .reg .b32 %t;
    .reg .b64 %state;
    .shared .align 8 .b64 signal;
    mov.u32 %t, %tid.x;
    setp.ge.u32 %p, %t, 32;
    @%p bra SECOND;
    .loc 1 7 5
    bar.sync 1, 64;
    ret;
SECOND:
    .loc 1 9 5
    setp.ne.u32 %p, %t, 32;
    @%p bra WAIT;
    mbarrier.init.shared.b64 [signal], 1;
WAIT:
    bar.warp.sync 0xffffffff;
    .loc 1 11 9
AGAIN:
    mbarrier.test_wait.parity.shared.b64 %p, [signal], 0;
    @!%p bra AGAIN;
    ret;
}
";

#[test]
fn a_deadlock_names_the_sources_lines() {
    let Some(child) = in_child("process::a_deadlock_names_the_sources_lines", &[]) else {
        let _context = context();
        let stuck = Module::of(STUCK);
        let deadlock = launch(stuck.function("stuck"), 1, 64, std::ptr::null_mut(), &mut []);
        assert_eq!(deadlock, Err(CUresult::CUDA_ERROR_LAUNCH_TIMEOUT));
        return;
    };
    let text = String::from_utf8_lossy(&child.stderr);
    let waits: Vec<&str> = text.lines().filter(|line| line.starts_with("  warp")).collect();
    assert_eq!(waits.len(), 2, "{text}");
    assert!(text.contains("sync: stuck: deadlock"), "{text}");
    assert!(waits[0].ends_with("wait at barrier 1, PTX line 15 (stuck.cu:7)"), "{text}");
    assert!(waits[1].contains("the mbarrier at shared 0x0") && waits[1].ends_with("(stuck.cu:11)"), "{text}");
}

#[test]
fn nothing_is_said_where_nobody_listens() {
    let name = "process::nothing_is_said_where_nobody_listens";
    if in_child(name, &[("VCUDA_CHECK", "memory")]).is_some() {
        return;
    }
    let _context = context();
    let mut ends = [0; 2];
    // SAFETY: descriptors of this process's own; stderr becomes a pipe that nobody reads.
    unsafe {
        assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
        libc::close(ends[0]);
        assert_eq!(libc::dup2(ends[1], 2), 2);
    }
    let (mut module, mut address) = (std::ptr::null_mut(), 0);
    // SAFETY: live locals, and calls that are refused.
    unsafe {
        assert_eq!(sys::cuTexRefDestroy(std::ptr::null_mut()), CUresult::CUDA_ERROR_NOT_SUPPORTED);
        let bad = sys::cuModuleLoadData(&mut module, c"no PTX".as_ptr().cast());
        assert_eq!(bad, CUresult::CUDA_ERROR_INVALID_PTX);
        sys::cuMemAlloc_v2(&mut address, 16).result().unwrap(); // a leak, which nobody hears of
    }
    let (wild, mut nowhere) = (Module::load(), 16u64);
    launch(wild.function("wild"), 1, 1, std::ptr::null_mut(), &mut [&mut nowhere]).unwrap();
    // SAFETY: nothing is passed. With a check the fault comes out where the host waits.
    assert_eq!(unsafe { sys::cuCtxSynchronize() }, CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
}

/// `1 + 16 · 2^-25` and `1 + 16 · 2^-24` by `mma`, and `2^1.5`: what each setting makes of them.
#[test]
fn adversaries_of_numbers_are_asked_for_by_name() {
    let name = "process::adversaries_of_numbers_are_asked_for_by_name";
    let product = |b: &str, at: usize| {
        format!(
            "mov.b32 b, {b}; mov.b32 c, 0f3F800000;
            mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {{d, e, f, g}}, {{a, a, a, a}}, {{b, b}}, {{c, c, c, c}};
            st.global.b32 [out+{at}], d;"
        )
    };
    let text = format!(
        ".version 7.8\n.target sm_80\n.address_size 64
        .visible .entry k(.param .u64 address) {{ .reg .b32 a, b, c, d, e, f, g; .reg .b64 out;
        ld.param.u64 out, [address]; mov.b32 a, 0x0c000c00; {} {}
        mov.b32 a, 0f3FC00000; ex2.approx.f32 d, a; st.global.b32 [out+8], d; ret; }}",
        product("0x08000800", 0),
        product("0x0c000c00", 4)
    );
    let found = |settings: &[(&str, &str)]| -> Option<([u32; 3], String)> {
        let Some(child) = in_child(name, settings) else {
            let context = context();
            let (module, stream) = (Module::of(&text), context.new_stream().unwrap());
            let mut words = [0u32; 3];
            // SAFETY: live locals, of as many bytes.
            unsafe {
                let mut address = 0u64;
                sys::cuMemAlloc_v2(&mut address, 12).result().unwrap();
                launch(module.function("k"), 1, 32, stream.cu_stream(), &mut [&mut address]).unwrap();
                sys::cuStreamSynchronize(stream.cu_stream()).result().unwrap();
                sys::cuMemcpyDtoH_v2(words.as_mut_ptr().cast(), address, 12).result().unwrap();
                sys::cuMemFree_v2(address).result().unwrap();
            }
            println!("\nfound {} {} {}", words[0], words[1], words[2]);
            return None;
        };
        let out = String::from_utf8_lossy(&child.stdout).to_string();
        let line = out.lines().find_map(|line| line.strip_prefix("found ")).expect("the child's words");
        let words: Vec<u32> = line.split(' ').map(|word| word.parse().unwrap()).collect();
        Some((words.try_into().unwrap(), String::from_utf8_lossy(&child.stderr).to_string()))
    };
    let Some((plain, _)) = found(&[]) else { return };
    assert_eq!(plain, [0x3f80_0000, 0x3f80_0000, (2f64.powf(1.5) as f32).to_bits()]);
    for (sums, want) in [("a100", [0x3f80_0000, 0x3f80_0008]), ("h100", [0x3f80_0004, 0x3f80_0008])] {
        assert_eq!(found(&[("VCUDA_SUMS", sums)]).unwrap().0[..2], want, "{sums}");
    }
    let (unknown, said) = found(&[("VCUDA_SUMS", "v100")]).unwrap();
    assert_eq!(unknown, plain);
    assert!(said.contains("VCUDA_SUMS=v100: expected a100 or h100"), "{said}");
    // All checks leave numbers as they are; by the seed, approximate functions do not.
    assert_eq!(found(&[("VCUDA_CHECK", "all"), ("VCUDA_SEED", "1")]).unwrap().0, plain);
    let astray =
        |checks: &str, seed: &str| found(&[("VCUDA_CHECK", checks), ("VCUDA_SEED", seed)]).unwrap().0;
    let seeds = ["1", "2", "3", "4", "5", "6"].map(|seed| astray("approx", seed));
    assert!(seeds.iter().all(|words| words[..2] == plain[..2] && words[2].abs_diff(plain[2]) <= 2));
    assert!(seeds.iter().any(|words| words[2] != plain[2]), "{seeds:x?}");
    for checks in ["all,approx", "approx,all"] {
        assert_eq!(astray(checks, "1"), seeds[0], "{checks}");
    }
}

use super::*;

#[test]
fn ranges_end_to_the_byte_and_memory_comes_back() {
    let memory = Memory::new(1 << 20);
    let (total, _) = memory.info();
    let a = memory.alloc(100).unwrap();
    let b = memory.alloc(5000).unwrap();
    assert_eq!(memory.range_of(a + 99), Some((a, a + 100)));
    assert_eq!(memory.range_of(a + 100), None);
    assert_eq!(memory.range_of(b), Some((b, b + 5000)));
    assert!(memory.owns(a) && !memory.owns(&total as *const usize as u64));
    assert!(memory.free(a) && !memory.free(a) && !memory.free(b + 1));
    assert!(memory.free(b));
    assert_eq!(memory.info().0, total);
    assert_eq!(memory.range_of(b), None);
    assert!(memory.alloc(2 << 20).is_none());
    assert!(memory.alloc(usize::MAX).is_none());
}

#[test]
fn what_is_freed_in_a_launch_can_be_touched_until_it_ends() {
    let memory = Memory::new(1 << 20);
    let place = memory.alloc(100).unwrap();
    let launches = [memory.running(), memory.running()];
    assert!(memory.free(place) && memory.range_of(place).is_none());
    assert_eq!(memory.info().0, 1 << 20);
    // SAFETY: the pages stay until both launches are over.
    unsafe { *(place as *mut u8) = 1 };
    assert_ne!(memory.alloc(100), Some(place));
    drop(launches);
    let again = memory.alloc(100).unwrap();
    // SAFETY: an allocation of this test's.
    assert_eq!((again, unsafe { *(again as *const u8) }), (place, 0));
}

#[test]
fn places_have_names() {
    let memory = Memory::new(1 << 20);
    let [first, second] = [100, 200].map(|bytes| memory.alloc(bytes).unwrap());
    let inside = format!("at byte 90 of the allocation {first:#x}..{:#x} (100 bytes)", first + 100);
    assert_eq!(memory.whereabouts(first + 90, 10), inside);
    assert_eq!(memory.whereabouts(first + 90, 11), format!("{inside}, and past the end of it"));
    assert!(memory.whereabouts(first + 104, 4).starts_with("4 bytes past the end of the allocation"));
    assert_eq!(memory.whereabouts(second + (1 << 19), 1), "outside every allocation");
    assert!(memory.free(second));
    assert!(memory.whereabouts(second + 8, 1).ends_with("(200 bytes), which has been freed"));
    let again = memory.alloc(8).unwrap();
    assert_eq!(again, second);
    assert!(memory.whereabouts(again, 1).ends_with("(8 bytes)"));
    for _ in 0..2 * MEMORIES {
        assert!(memory.free(memory.alloc(1).unwrap()));
    }
    assert_eq!(memory.space.read().remembered.len(), MEMORIES);
}

#[test]
fn reserved_addresses_stay_until_they_are_given_up() {
    let memory = Memory::new(1 << 16);
    let place = memory.reserve_addresses(5000).unwrap();
    assert_eq!((memory.range_of(place), memory.info().0), (None, 1 << 16));
    for _ in 0..2 {
        assert!(memory.alloc_at(place, 5000));
        assert_eq!(memory.range_of(place + 4999), Some((place, place + 5000)));
        assert_ne!(memory.alloc(1), Some(place));
        let launch = memory.running();
        assert!(memory.free(place) && memory.alloc_at(place, 5000));
        drop(launch);
        // SAFETY: live, also after the launch.
        unsafe { *(place as *mut u8).add(4999) = 1 };
        assert!(memory.free(place) && memory.range_of(place).is_none());
    }
    let launch = memory.running();
    assert!(memory.alloc_at(place, 5000) && memory.free(place));
    memory.release_addresses(place, 5000);
    assert_ne!(memory.alloc(5000), Some(place), "a launch may still touch it");
    drop(launch);
    assert_eq!(memory.alloc(5000), Some(place));
    assert!(!memory.alloc_at(memory.reserve_addresses(1 << 16).unwrap(), 1 << 16));
}

#[test]
fn freed_space_is_joined_and_used_again() {
    let memory = Memory::new(1 << 30);
    let all: Vec<u64> = (0..100).map(|i| memory.alloc(1 + i * 100).unwrap()).collect();
    let first = all[0];
    all.iter().step_by(2).for_each(|&a| assert!(memory.free(a)));
    all.iter().skip(1).step_by(2).for_each(|&a| assert!(memory.free(a)));
    assert_eq!(memory.alloc(1 << 29), Some(first));
}

#[test]
fn devices_share_addresses_and_nothing_else() {
    let first = Memory::new(1 << 20);
    let second = first.of_device(1);
    let [a, b] = [&first, &second].map(|memory| memory.alloc(100).unwrap());
    assert!(first.owns(b) && first.range_of(b).is_none() && second.range_of(b).is_some());
    assert_eq!(first.range_anywhere(b + 99), Some((b, b + 100, 1)));
    assert!(first.whereabouts(b + 3, 1).ends_with("of device 1, which device 0 has no peer access to"));
    assert_eq!((first.info().0, second.info().0), ((1 << 20) - 4096, (1 << 20) - 4096));
    assert!(second.alloc(1 << 20).is_none() && first.of_device(2).alloc(1 << 20).is_some());
    first.set_peer(1, true);
    assert_eq!((first.range_of(b), second.range_of(a)), (Some((b, b + 100)), None));
    first.set_peer(1, false);
    first.set_reach(a, Reach::Devices(u32::MAX));
    assert_eq!((first.range_of(b), second.range_of(a)), (None, Some((a, a + 100))));
    assert!(first.free(b) && second.free(a));
    assert_eq!((first.info().0, second.info().0), (1 << 20, 1 << 20));
}

#[test]
fn a_range_grows_by_what_is_asked_for() {
    let memory = Memory::first(Space::growing(), Shadow::default(), 1 << 40);
    let reserved = || memory.space.reserved_bytes();
    let few = reserved();
    let small = memory.alloc(100).unwrap();
    assert_eq!(reserved(), few);
    let large = memory.alloc(3 * few).unwrap();
    assert!((4 * few..6 * few).contains(&reserved()));
    assert_eq!(memory.range_of(large + 5), Some((large, large + 3 * few as u64)));
    // SAFETY: both ends of an allocation of this test's.
    unsafe { *(large as *mut u8) = *((large + 3 * few as u64 - 1) as *mut u8) };
    assert!(memory.owns(small) && memory.owns(large) && !memory.owns(large + 8 * few as u64));
    let most = reserved();
    assert!(memory.free(large));
    assert_eq!(memory.alloc(3 * few), Some(large), "what is free is taken before there is more");
    assert_eq!(reserved(), most);
}

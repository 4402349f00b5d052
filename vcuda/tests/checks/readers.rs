//! Several threads read a place, and a write is ordered after some of them only: every reader counts.

use crate::device::Kernel;

const ONE: Kernel = Kernel { blocks: 1, threads: 96, written: 1024, body: "" };

fn with(body: String, kernel: Kernel) -> Kernel {
    Kernel { body: Box::leak(body.into_boxed_str()), ..kernel }
}

/// Warps 0 and 1 read a word of the tile, and warp 2 writes it after the barrier.
fn read_and_write(read: &str, meet: &str, wait: &str) -> Kernel {
    let body = format!(
        "st.shared.u32 [a], t; mov.u32 b, bar; setp.eq.u32 p, t, 0; @p mbarrier.init.shared.b64 [b], 32; bar.sync 0;
        mov.u32 d, tile; setp.eq.u32 p, warp, 2; @p bra write;
        {read} setp.eq.u32 q, warp, 0; {meet} bra.uni done;
        write: {wait} setp.eq.u32 q, lane, 0; @q st.shared.u32 [d], 7;
        done: st.global.u32 [to], t;"
    );
    with(body, ONE)
}

#[test]
fn of_two_warps_that_read_one_meets_the_writer() {
    let words = ["a race", "at shared 0x0", "thread [", "line 16"];
    let wait_mbarrier = "again: mbarrier.try_wait.parity.shared.b64 q, [b], 0; @!q bra again;";
    let both_arrive = "and.b32 c, lane, 1; setp.eq.u32 q, c, 0; @q mbarrier.arrive.shared.b64 at, [b];";
    // One word by all lanes, a word by each of one warp's lanes, and by eight of them a row of a matrix.
    let reads = [
        "ld.shared.u32 c, [d];",
        "mad.lo.u32 c, lane, 4, d; ld.shared.u32 c, [c];",
        "and.b32 c, lane, 7; mad.lo.u32 c, c, 16, d; ldmatrix.sync.aligned.m8n8.x1.shared.b16 {c}, [c];",
    ];
    for read in reads {
        read_and_write(read, "bar.sync 1, 96;", "bar.sync 1, 96;").is_fine(|i| i);
        read_and_write(read, "@q bra done; bar.sync 1, 64;", "bar.sync 1, 64;").is_caught(&words);
        let ordered = format!("bar.warp.sync -1; {both_arrive}");
        read_and_write(read, &ordered, wait_mbarrier).is_fine(|i| i);
        let one = "@q bra done; mbarrier.arrive.shared.b64 at, [b];";
        read_and_write(read, one, wait_mbarrier).is_caught(&words);
    }
}

/// CTAs 0 to 6 read a word, count themselves if `counts`, and CTA 7 writes the word when `expected` have.
fn ctas(counts: &str, expected: u32) -> Kernel {
    let body = format!(
        "ld.param.u64 inp, [inp_address]; mov.u64 at, counter; setp.eq.u32 p, cta, 7; @p bra write;
        ld.global.u32 c, [inp]; membar.gl; bar.sync 0; setp.eq.u32 q, t, 0; {counts} @q red.global.add.u32 [at], 1;
        bra.uni done;
        write: ld.relaxed.gpu.global.u32 c, [at]; setp.lt.u32 q, c, {expected}; @q bra write;
        membar.gl; setp.eq.u32 q, t, 0; @q st.global.u32 [inp], 5;
        done: st.global.u32 [to], t;"
    );
    with(body, Kernel { blocks: 8, threads: 32, ..ONE })
}

#[test]
fn a_cta_writes_what_others_have_read() {
    ctas("", 7).is_fine(|i| i % 32);
    let words = ["a race", "at global", "of CTA [", "line 15"];
    ctas("@q setp.ne.u32 q, cta, 3;", 6).is_caught(&words);
    ctas("@q setp.eq.u32 q, cta, 3;", 1).is_caught(&words);
}

//! The state of a barrier in shared memory, PTX ISA 9.7.13.15.

/// An mbarrier: where it is on the host, and in the shared window.
#[derive(Clone, Copy, Debug)]
pub struct Barrier {
    pub host: *mut u8,
    pub address: u64,
}

/// A wait that failed.
#[derive(Clone, Copy, Debug)]
pub struct Missed {
    pub barrier: Barrier,
    pub pc: usize,
}

/// Arrivals, and transactions, that a barrier can count.
const MAX_COUNT: u32 = (1 << 20) - 1;

/// What the 64-bit word holds: phase 3 bits, expected arrivals 20, pending arrivals 20, pending
/// transactions in bytes 21. A PTX program may not look inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Number of the current phase, modulo 8.
    pub phase: u32,
    /// Arrivals that a phase begins with.
    pub expected: u32,
    pub pending: u32,
    /// Bytes announced less bytes come.
    pub tx: i32,
}

impl State {
    pub fn new(count: u32) -> Result<State, String> {
        if count == 0 || count > MAX_COUNT {
            return Err(format!("an mbarrier for {count} arrivals: 1 to {MAX_COUNT} are possible"));
        }
        Ok(State { phase: 0, expected: count, pending: count, tx: 0 })
    }

    pub fn decode(word: u64) -> State {
        let field = |shift: u32, bits: u32| (word >> shift) as u32 & ((1 << bits) - 1);
        let tx = (word as i64) >> 43;
        State { phase: field(0, 3), expected: field(3, 20), pending: field(23, 20), tx: tx as i32 }
    }

    pub fn encode(self) -> u64 {
        u64::from(self.phase)
            | u64::from(self.expected) << 3
            | u64::from(self.pending) << 23
            | (self.tx as u64) << 43
    }

    /// `count` arrivals.
    pub fn arrive(&mut self, count: u32) -> Result<(), String> {
        if count > self.pending {
            return Err(format!("{count} arrivals at an mbarrier of which {} are pending", self.pending));
        }
        self.pending -= count;
        self.settle()
    }

    /// As [`State::arrive`], but the phase may not end by it.
    pub fn arrive_no_complete(&mut self, count: u32) -> Result<(), String> {
        if count >= self.pending && self.tx == 0 {
            return Err(format!("{count} arrivals of {}: noComplete would end the phase", self.pending));
        }
        self.arrive(count)
    }

    /// One more arrival in this phase.
    pub fn owe(&mut self) -> Result<(), String> {
        if self.pending == MAX_COUNT {
            return Err(format!("more than {MAX_COUNT} pending arrivals at an mbarrier"));
        }
        self.pending += 1;
        Ok(())
    }

    /// `count` arrivals less in the phases to come.
    pub fn drop_out(&mut self, count: u32) -> Result<(), String> {
        if count > self.expected {
            return Err(format!("{count} dropped arrivals at an mbarrier that expects {}", self.expected));
        }
        self.expected -= count;
        Ok(())
    }

    /// `bytes` announced (positive) or come (negative).
    pub fn transact(&mut self, bytes: i64) -> Result<(), String> {
        let tx = i64::from(self.tx) + bytes;
        if tx.unsigned_abs() > MAX_COUNT.into() {
            return Err(format!("a tx-count of {tx} at an mbarrier: its limit is {MAX_COUNT}"));
        }
        self.tx = tx as i32;
        self.settle()
    }

    /// Ends the phase if nothing is pending.
    fn settle(&mut self) -> Result<(), String> {
        if self.pending > 0 {
            return Ok(());
        }
        if self.tx < 0 {
            let bytes = -self.tx;
            return Err(format!(
                "every arrival is in, and {bytes} bytes more have come than the phase expects"
            ));
        }
        if self.tx == 0 {
            (self.phase, self.pending) = ((self.phase + 1) & 7, self.expected);
        }
        Ok(())
    }

    /// Whether the phase that a token names is over.
    pub fn is_over(self, token: State) -> Result<bool, String> {
        match self.phase.wrapping_sub(token.phase) & 7 {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err("a wait for a phase before the last one".to_string()),
        }
    }
}

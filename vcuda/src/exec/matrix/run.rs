//! Straight runs of `mma.sync` whose sums may be a grid: what of them is known when a module is loaded.

/// The slots of an `mma` whose D is its C.
#[derive(Clone, PartialEq, Eq)]
pub struct Slots {
    pub d: Vec<u16>,
    pub a: Vec<u16>,
    pub b: Vec<u16>,
    /// Where they are in the kernel's lists.
    pub list: usize,
}

/// A run, or the part of one that has been decoded.
pub struct Run {
    pub(super) all: Vec<Slots>,
    /// Elements of a factor's register.
    per_lane: usize,
    /// What it comes to; nothing where that is less simple.
    pub(in crate::exec) grids: Vec<Grid>,
}

/// Slots of D tile by tile and block by block, of A block by block and of B tile by tile for each step of k.
pub struct Grid {
    pub blocks: usize,
    pub tiles: usize,
    pub d: Vec<u16>,
    pub a: Vec<Factor>,
    pub b: Vec<Factor>,
}

/// A matrix of eight rows that is, or will be, in a register.
#[derive(Clone, Copy)]
pub struct Factor {
    pub slot: u16,
    pub is: Held,
}

/// What a factor's register has: its rows, or where in shared memory its rows are, or its columns.
#[derive(Clone, Copy)]
pub enum Held {
    Itself,
    Rows,
    Columns,
}

impl Run {
    /// None yet, of factors that have so many elements in a lane's register.
    pub fn new(per_lane: usize) -> Run {
        Run { all: Vec::new(), per_lane, grids: Vec::new() }
    }

    /// Whether one more may come after the others, whose sums are its own or of other registers, and whose factors it
    /// does not write.
    pub fn takes(&self, next: &Slots) -> bool {
        let meets = |some: &[u16], others: &[u16]| some.iter().any(|slot| others.contains(slot));
        self.all.iter().all(|slots| {
            let factors = [&slots.a[..], &slots.b].concat();
            !meets(&next.d, &factors)
                && !meets(&next.a, &slots.d)
                && !meets(&next.b, &slots.d)
                && (next.d == slots.d || !meets(&next.d, &slots.d))
        })
    }

    pub fn push(&mut self, next: Slots) {
        self.all.push(next);
    }

    /// Whether it may take factors from where their registers point; from now on it does.
    pub fn point(&mut self, slots: &[u16], is_transposed: bool) -> bool {
        // Of elements of 16 bits rows and columns are exchanged.
        if self.grids.is_empty() || is_transposed && self.per_lane != 2 {
            return false;
        }
        let factors = self.grids.iter_mut().flat_map(|grid| grid.a.iter_mut().chain(&mut grid.b));
        for factor in factors.filter(|factor| slots.contains(&factor.slot)) {
            factor.is = if is_transposed { Held::Columns } else { Held::Rows };
        }
        true
    }

    /// All have been decoded.
    pub fn end(&mut self) {
        if self.all.len() > 1 {
            self.grids =
                parts(&self.all).iter().map(|part| grid(part)).collect::<Option<_>>().unwrap_or_default();
        }
    }
}

/// The factors of a sum, step by step.
#[derive(Default, PartialEq, Eq)]
struct Steps<'a>(Vec<&'a [u16]>);

/// A tile of D and what is summed there.
struct Tile<'a> {
    d: &'a [u16],
    a: Steps<'a>,
    b: Steps<'a>,
}

/// Products that have neither sums nor factors in common, in whatever order they came.
fn parts(all: &[Slots]) -> Vec<Vec<&Slots>> {
    let mut parts: Vec<Vec<&Slots>> = Vec::new();
    for next in all {
        let is_near = |slots: &&Slots| slots.d == next.d || slots.a == next.a || slots.b == next.b;
        let (mut near, apart): (Vec<_>, Vec<_>) =
            parts.into_iter().partition(|part| part.iter().any(is_near));
        near.push(vec![next]);
        parts = apart;
        parts.push(near.concat());
    }
    parts
}

/// The grid that the sums of a part of a run are.
fn grid(all: &[&Slots]) -> Option<Grid> {
    let mut tiles: Vec<Tile> = Vec::new();
    for Slots { d, a, b, .. } in all {
        let place = tiles.iter().position(|tile| tile.d == d).unwrap_or(tiles.len());
        if place == tiles.len() {
            tiles.push(Tile { d, a: Steps::default(), b: Steps::default() });
        }
        tiles[place].a.0.push(a);
        tiles[place].b.0.push(b);
    }
    let (mut rows, mut columns): (Vec<&Steps>, Vec<&Steps>) = (Vec::new(), Vec::new());
    for Tile { a, b, .. } in &tiles {
        if !rows.contains(&a) {
            rows.push(a);
        }
        if !columns.contains(&b) {
            columns.push(b);
        }
    }
    let steps = all.len() / tiles.len();
    if tiles.len() != rows.len() * columns.len() || tiles.iter().any(|tile| tile.a.0.len() != steps) {
        return None;
    }
    let mut d = Vec::new();
    for &row in &rows {
        for &column in &columns {
            d.extend_from_slice(tiles.iter().find(|tile| tile.a == *row && tile.b == *column)?.d);
        }
    }
    let by_step = |all: &[&Steps]| {
        (0..steps)
            .flat_map(|step| all.iter().flat_map(move |of| of.0[step].iter().copied()))
            .map(|slot| Factor { slot, is: Held::Itself })
            .collect()
    };
    Some(Grid { blocks: rows.len(), tiles: columns.len(), d, a: by_step(&rows), b: by_step(&columns) })
}

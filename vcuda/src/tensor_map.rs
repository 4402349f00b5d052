//! Tensor maps: the 128 bytes that describe a tensor in global memory and the box that a tensor copy
//! moves (PTX ISA 5.5; CUDA driver API, "Tensor Map Object Management").
//!
//! The bytes are opaque on a GPU too; this layout is our own.

use crate::exec::Kind;

/// Bytes of a map, and what its address is a multiple of.
pub const MAP_BYTES: usize = 128;
pub const MAP_ALIGN: u64 = 64;

const MAGIC: u32 = 0x70_61_6d_74;
/// Limits of `cuTensorMapEncodeTiled` in CUDA 13.5's cuda.h; before 13 a dimension might be 2^32.
const MAX_DIM: u64 = 1 << 31;
const MAX_STRIDE: u64 = 1 << 40;

/// A map's fields, as `tensormap.replace` names them, and how many values each has.
pub const FIELDS: [&str; 10] = [
    "global_address",
    "rank",
    "box_dim",
    "global_dim",
    "global_stride",
    "element_stride",
    "elemtype",
    "interleave_layout",
    "swizzle_mode",
    "fill_mode",
];
const VALUES: [usize; 10] = [1, 1, 5, 5, 4, 5, 1, 1, 1, 1];
/// All their values, as bits.
const ALL: u32 = (1 << 25) - 1;

/// The number of one value of a field, among all.
pub fn value_number(field: usize, index: usize) -> usize {
    VALUES[..field].iter().sum::<usize>() + index
}

/// `CUtensorMapDataType`s after those that are a [`Kind`] each.
const F32_FTZ: u32 = 10;
const TF32: u32 = 11;
const TF32_FTZ: u32 = 12;

/// An element's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataType {
    pub kind: Kind,
    /// Loads round to 10 bits of mantissa.
    pub is_tf32: bool,
}

impl DataType {
    /// From `CUtensorMapDataType`. The `_FTZ` types are as those without: copies move subnormals as they are, and
    /// reductions of float32 flush them in any case.
    pub fn from_driver(code: u32) -> Option<DataType> {
        let kind = match code {
            F32_FTZ | TF32 | TF32_FTZ => Kind::F32,
            _ => Kind::from_number(code as usize)?,
        };
        Some(DataType { kind, is_tf32: matches!(code, TF32 | TF32_FTZ) })
    }

    /// From the `elemtype` of `tensormap.replace`, which counts otherwise from 8 on.
    pub fn from_ptx(code: u32) -> Option<DataType> {
        DataType::from_driver(match code {
            8 => F32_FTZ,
            9 => 8,
            10 => 9,
            0..8 | TF32 | TF32_FTZ => code,
            _ => return None,
        })
    }

    fn is_float(self) -> bool {
        matches!(self.kind, Kind::F16 | Kind::Bf16 | Kind::F32 | Kind::F64)
    }
}

/// A tensor and a box of it. Dimension 0 is the innermost; what is past `rank` is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorMap {
    pub ty: DataType,
    pub rank: usize,
    pub address: u64,
    /// Elements along each dimension.
    pub dims: [u64; 5],
    /// Bytes from one index to the next, of dimensions 1 and up.
    pub strides: [u64; 4],
    /// The box, in elements of the tensor.
    pub extents: [u32; 5],
    /// Of every how many elements of the box one is moved; dimension 0 moves all.
    pub steps: [u32; 5],
    /// log2 of the swizzle's span in 16-byte chunks: 0 none, 1 to 3 for 32, 64 and 128 bytes.
    pub swizzle: u32,
    /// Out of bounds is NaN, not zero.
    pub fills_nan: bool,
    /// Values that have never been set, as bits, by [`value_number`]: of a map that is built on the device.
    pub missing: u32,
}

impl TensorMap {
    /// A map of which nothing is set yet: what 128 zeros are, from which `tensormap.replace` builds one.
    fn blank() -> TensorMap {
        TensorMap {
            ty: DataType { kind: Kind::U8, is_tf32: false },
            rank: 0,
            address: 0,
            dims: [1; 5],
            strides: [0; 4],
            extents: [1; 5],
            steps: [1; 5],
            swizzle: 0,
            fills_nan: false,
            missing: ALL,
        }
    }

    /// Whether nothing of it has been set.
    pub fn is_blank(&self) -> bool {
        self.missing == ALL
    }

    /// Names what a map of this rank needs and has never been given, if there is anything. Zeros are a layout, a swizzle and
    /// a fill: none, which compilers rely on.
    fn names_missing(&self) -> Option<String> {
        let mut names = Vec::new();
        for (field, (name, values)) in FIELDS.iter().zip(VALUES).enumerate() {
            let needed = match *name {
                "interleave_layout" | "swizzle_mode" | "fill_mode" => 0,
                "global_stride" => self.rank.saturating_sub(1),
                _ if values > 1 => self.rank.max(1),
                _ => 1,
            };
            for index in (0..needed.min(values)).filter(|&i| self.missing >> value_number(field, i) & 1 != 0)
            {
                names.push(if values > 1 { format!("{name} {index}") } else { name.to_string() });
            }
        }
        (!names.is_empty()).then(|| names.join(", "))
    }

    /// A map of `dims.len()` dimensions from the driver API's numbers; `strides` has one entry less.
    ///
    /// # Errors
    /// An unknown type or swizzle, and what [`TensorMap::validate`] finds.
    #[allow(clippy::too_many_arguments)]
    pub fn tiled(
        data_type: u32,
        address: u64,
        dims: &[u64],
        strides: &[u64],
        extents: &[u32],
        steps: &[u32],
        swizzle: u32,
        fill: u32,
    ) -> Result<TensorMap, String> {
        let ty = DataType::from_driver(data_type)
            .ok_or_else(|| format!("the data type {data_type} is not supported"))?;
        if swizzle > 3 || fill > 1 {
            return Err(format!("swizzle {swizzle} and fill {fill}: 0 to 3 and 0 to 1 are possible"));
        }
        let map = TensorMap {
            ty,
            rank: dims.len(),
            address,
            dims: filled(dims, 1),
            strides: filled(strides, 0),
            extents: filled(extents, 1),
            steps: filled(steps, 1),
            swizzle,
            fills_nan: fill == 1,
            missing: 0,
        };
        map.validate()?;
        Ok(map)
    }

    /// Checks that all is set, and what `cuTensorMapEncodeTiled` documents.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), String> {
        let require = |holds: bool, what: &dyn Fn() -> String| if holds { Ok(()) } else { Err(what()) };
        if let Some(names) = self.names_missing() {
            return Err(format!("never set: {names}"));
        }
        let rank = self.rank;
        require((1..=5).contains(&rank), &|| format!("rank {rank}: 1 to 5 are possible"))?;
        let at = self.address;
        require(at.is_multiple_of(16), &|| format!("the address {at:#x} is no multiple of 16"))?;
        for (i, dim) in self.dims[..rank].iter().enumerate() {
            require((1..=MAX_DIM).contains(dim), &|| {
                format!("dimension {i} is {dim}: 1 to 2^31 are possible")
            })?;
        }
        for (i, stride) in self.strides[..rank - 1].iter().enumerate() {
            let ok = stride.is_multiple_of(16) && *stride < MAX_STRIDE;
            require(ok, &|| format!("stride {i} is {stride} bytes: it must be a multiple of 16 below 2^40"))?;
        }
        for (i, extent) in self.extents[..rank].iter().enumerate() {
            require((1..=256).contains(extent), &|| {
                format!("the box has {extent} along {i}: 1 to 256 are possible")
            })?;
        }
        for (i, step) in self.steps[..rank].iter().enumerate() {
            require((1..=8).contains(step), &|| {
                format!("element stride {i} is {step}: 1 to 8 are possible")
            })?;
        }
        let inner = self.extents[0] as usize * self.ty.kind.bytes();
        require(inner.is_multiple_of(16), &|| {
            format!("the box's inner {inner} bytes are no multiple of 16")
        })?;
        let span = 16 << self.swizzle;
        let fits = self.swizzle == 0 || inner <= span;
        require(fits, &|| format!("the box's inner {inner} bytes are more than the swizzle's {span}"))?;
        require(!self.fills_nan || self.ty.is_float(), &|| "a NaN fill of integers".to_string())
    }

    /// The map without what it had when its rank was higher.
    pub fn trimmed(self) -> TensorMap {
        let rank = self.rank.clamp(1, 5);
        TensorMap {
            dims: filled(&self.dims[..rank], 1),
            strides: filled(&self.strides[..rank - 1], 0),
            extents: filled(&self.extents[..rank], 1),
            steps: filled(&self.steps[..rank], 1),
            ..self
        }
    }

    /// Elements that are moved along each dimension.
    pub fn counts(&self) -> [u32; 5] {
        std::array::from_fn(|i| match i {
            0 => self.extents[0],
            i => self.extents[i].div_ceil(self.steps[i]),
        })
    }

    /// Bytes that a whole box moves, which is what its mbarrier counts.
    pub fn box_bytes(&self) -> usize {
        self.counts().iter().map(|&n| n as usize).product::<usize>() * self.ty.kind.bytes()
    }

    /// Bytes from one row of a box to the next in shared memory: a swizzled row has all of its span.
    pub fn row_bytes(&self) -> usize {
        match self.swizzle {
            0 => self.extents[0] as usize * self.ty.kind.bytes(),
            span => 16 << span,
        }
    }

    /// Shared memory that a box takes.
    pub fn shared_bytes(&self) -> usize {
        self.counts()[1..].iter().map(|&n| n as usize).product::<usize>() * self.row_bytes()
    }

    pub fn encode(&self) -> [u8; MAP_BYTES] {
        let mut bytes = [0; MAP_BYTES];
        let mut at = 0;
        let mut put = |value: u64, size: usize| {
            bytes[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
            at += size;
        };
        put(MAGIC.into(), 4);
        put(self.ty.kind as u64, 1);
        put(self.ty.is_tf32 as u64 | (self.fills_nan as u64) << 1, 1);
        put(self.rank as u64, 1);
        put(self.swizzle.into(), 1);
        put(self.address, 8);
        self.dims.iter().for_each(|&dim| put(dim, 4));
        self.strides.iter().for_each(|&stride| put(stride, 8));
        self.extents.iter().for_each(|&extent| put(extent.into(), 4));
        self.steps.iter().for_each(|&step| put(step.into(), 4));
        put(self.missing.into(), 4);
        bytes
    }

    /// The map in `bytes`, whole or not, or `None` if there is none.
    pub fn decode(bytes: &[u8; MAP_BYTES]) -> Option<TensorMap> {
        if bytes == &[0; MAP_BYTES] {
            return Some(TensorMap::blank());
        }
        let mut at = 0;
        let mut get = |size: usize| {
            let mut value = [0; 8];
            value[..size].copy_from_slice(&bytes[at..at + size]);
            at += size;
            u64::from_le_bytes(value)
        };
        if get(4) != u64::from(MAGIC) {
            return None;
        }
        let kind = Kind::from_number(get(1) as usize)?;
        let flags = get(1);
        let (rank, swizzle) = (get(1) as usize, get(1) as u32);
        let map = TensorMap {
            ty: DataType { kind, is_tf32: flags & 1 != 0 },
            rank,
            address: get(8),
            dims: std::array::from_fn(|_| get(4)),
            strides: std::array::from_fn(|_| get(8)),
            extents: std::array::from_fn(|_| get(4) as u32),
            steps: std::array::from_fn(|_| get(4) as u32),
            swizzle,
            fills_nan: flags & 2 != 0,
            missing: get(4) as u32,
        };
        (map.rank <= 5 && map.swizzle <= 3).then_some(map)
    }
}

/// As many values as there are, then `rest`.
fn filled<T: Copy, const N: usize>(values: &[T], rest: T) -> [T; N] {
    std::array::from_fn(|i| values.get(i).copied().unwrap_or(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> TensorMap {
        TensorMap {
            ty: DataType { kind: Kind::F16, is_tf32: false },
            rank: 3,
            address: 0x7f00_1230,
            dims: [1 << 31, 7, 3, 1, 1],
            strides: [(1 << 40) - 16, 16, 0, 0],
            extents: [64, 256, 2, 1, 1],
            steps: [1, 3, 8, 1, 1],
            swizzle: 3,
            fills_nan: true,
            missing: 0,
        }
    }

    #[test]
    fn maps_survive_their_bytes() {
        assert_eq!(TensorMap::decode(&map().encode()), Some(map()));
        assert_eq!(TensorMap::decode(&[0; MAP_BYTES]), Some(TensorMap::blank()));
        assert_eq!(TensorMap::decode(&TensorMap::blank().encode()), Some(TensorMap::blank()));
        assert_eq!(TensorMap::decode(&[0xff; MAP_BYTES]), None);
        assert_eq!(map().box_bytes(), 64 * 86 * 2);
    }

    #[test]
    fn a_lower_rank_leaves_nothing_behind() {
        let flat = TensorMap { rank: 2, ..map() }.trimmed();
        assert_eq!((flat.dims, flat.extents), ([1 << 31, 7, 1, 1, 1], [64, 256, 1, 1, 1]));
        assert_eq!((flat.strides, flat.steps), ([(1 << 40) - 16, 0, 0, 0], [1, 3, 1, 1, 1]));
    }

    #[test]
    fn what_has_never_been_set_is_named() {
        let missing = |map: TensorMap| map.validate().expect_err("a map that is not whole");
        assert!(
            missing(TensorMap::blank())
                .starts_with("never set: global_address, rank, box_dim 0, global_dim 0")
        );
        let [stride, step] = ["global_stride", "element_stride"]
            .map(|name| FIELDS.iter().position(|field| *field == name).expect("a field"));
        // Of three dimensions, two strides and three steps are needed.
        for (field, index, text) in [(stride, 1, Some("global_stride 1")), (stride, 2, None), (step, 3, None)]
        {
            let map = TensorMap { missing: 1 << value_number(field, index), ..map() };
            let found = map.validate();
            assert_eq!(found.err(), text.map(|text| format!("never set: {text}")), "{field} {index}");
            assert_eq!(TensorMap::decode(&map.encode()), Some(map));
        }
    }

    #[test]
    fn each_rule_is_checked() {
        assert_eq!(map().validate(), Ok(()));
        let broken: [fn(&mut TensorMap); 14] = [
            |m| m.rank = 0,
            |m| m.rank = 6,
            |m| m.address += 8,
            |m| m.dims[1] = 0,
            |m| m.dims[0] += 1,
            |m| m.strides[1] = 8,
            |m| m.strides[0] = 1 << 40,
            |m| m.extents[2] = 0,
            |m| m.extents[1] = 257,
            |m| m.extents[0] = 4,
            |m| m.extents[0] = 72,
            |m| m.steps[1] = 9,
            |m| m.steps[2] = 0,
            |m| m.ty.kind = Kind::U16,
        ];
        for (i, change) in broken.into_iter().enumerate() {
            let mut map = map();
            change(&mut map);
            assert!(map.validate().is_err(), "case {i}: {map:?}");
        }
    }
}

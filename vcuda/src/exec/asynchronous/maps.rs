//! Tensor maps that have been decoded, by the bytes that they were decoded from: a kernel has few, and names them again and again.

use std::cell::RefCell;

use crate::tensor_map::{MAP_BYTES, TensorMap};

/// Maps that are known, at most, one for each of as many places.
const MOST: usize = 8;

/// As they are in memory.
pub type Bytes = [u8; MAP_BYTES];

/// Of a host thread's CTAs in one launch; empty until there is one, as most launches have none.
#[derive(Default)]
pub struct Maps(RefCell<Vec<Option<(Bytes, TensorMap)>>>);

impl Maps {
    /// What the bytes at this address say.
    ///
    /// # Errors
    /// That no copy can use it.
    pub fn decode(&self, address: u64, bytes: &Bytes) -> Result<TensorMap, String> {
        let mut known = self.0.borrow_mut();
        if known.is_empty() {
            known.resize(MOST, None);
        }
        let known = &mut known[address as usize / MAP_BYTES % MOST];
        if let Some((of, map)) = &*known
            && of == bytes
        {
            return Ok(*map);
        }
        let map = TensorMap::decode(bytes).filter(|map| !map.is_blank());
        let map = map.ok_or_else(|| format!("there is no tensor map at {address:#x}"))?;
        map.validate().map_err(|what| format!("the tensor map at {address:#x}: {what}"))?;
        Ok(known.insert((*bytes, map.trimmed())).1)
    }
}

//! The driver's errors, which keep their code.

use std::fmt;

use cudarc::driver::DriverError;
use cudarc::driver::sys::CUresult;

/// What the driver answered instead of success: `CUDA_ERROR_X: its text`.
#[derive(Clone, Copy, Debug)]
pub struct CudaError(pub CUresult);

impl fmt::Display for CudaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DriverError(self.0).error_string() {
            Ok(text) => write!(f, "{:?}: {}", self.0, text.to_string_lossy()),
            Err(_) => write!(f, "{:?}", self.0),
        }
    }
}

impl std::error::Error for CudaError {}

impl From<DriverError> for CudaError {
    fn from(error: DriverError) -> CudaError {
        CudaError(error.0)
    }
}

/// Whether the device had no memory left: less at once may do.
pub fn is_out_of_memory(error: &anyhow::Error) -> bool {
    error.downcast_ref::<CudaError>().is_some_and(|error| error.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY)
}

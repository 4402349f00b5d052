//! The driver's errors, which keep their code.

use std::fmt;

use cudarc::driver::DriverError;
use cudarc::driver::sys::CUresult;

/// What the driver answered instead of success: `CUDA_ERROR_X: its text`. A kernel's fault is told to whoever calls next, long
/// after its launch, maybe behind other launches; its text says so.
#[derive(Clone, Copy, Debug)]
pub struct CudaError(pub CUresult);

impl fmt::Display for CudaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)?;
        if let Ok(text) = DriverError(self.0).error_string() {
            write!(f, ": {}", text.to_string_lossy())?;
        }
        match self.0 {
            _ if self.is_fault() => f.write_str(" (by any kernel queued so far, not just by what is named here)"),
            CUresult::CUDA_ERROR_UNKNOWN | CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE => {
                f.write_str(" (the GPU may have dropped out, or another process may have it for itself: see nvidia-smi and dmesg)")
            }
            _ => Ok(()),
        }
    }
}

impl CudaError {
    /// Whether it is of compiled kernels that this driver cannot load, so that in another form it may.
    pub(super) fn is_of_image(self) -> bool {
        use CUresult::*;
        matches!(
            self.0,
            CUDA_ERROR_INVALID_IMAGE
                | CUDA_ERROR_NO_BINARY_FOR_GPU
                | CUDA_ERROR_INVALID_PTX
                | CUDA_ERROR_JIT_COMPILER_NOT_FOUND
                | CUDA_ERROR_UNSUPPORTED_PTX_VERSION
                | CUDA_ERROR_JIT_COMPILATION_DISABLED
                | CUDA_ERROR_INVALID_SOURCE
        )
    }

    /// Whether it is a kernel's, while it ran.
    fn is_fault(self) -> bool {
        use CUresult::*;
        matches!(
            self.0,
            CUDA_ERROR_ECC_UNCORRECTABLE
                | CUDA_ERROR_ILLEGAL_ADDRESS
                | CUDA_ERROR_LAUNCH_TIMEOUT
                | CUDA_ERROR_ASSERT
                | CUDA_ERROR_HARDWARE_STACK_ERROR
                | CUDA_ERROR_ILLEGAL_INSTRUCTION
                | CUDA_ERROR_MISALIGNED_ADDRESS
                | CUDA_ERROR_INVALID_ADDRESS_SPACE
                | CUDA_ERROR_INVALID_PC
                | CUDA_ERROR_LAUNCH_FAILED
        )
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

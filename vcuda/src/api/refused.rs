//! Functions that clients look up and that are not supported: each says so once.

use std::sync::Once;

use super::Status;

macro_rules! refuse {
    ($($name:ident)*) => {$(
        /// Not supported: returns `CUDA_ERROR_NOT_SUPPORTED`, and names itself on stderr once.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> i32 {
            static NAMED: Once = Once::new();
            NAMED.call_once(|| eprintln!(concat!("vcuda: ", stringify!($name), " is not supported")));
            Status::NotSupported as i32
        }
    )*};
}

refuse! {
    cuStreamBeginCapture_v2 cuStreamEndCapture cuStreamGetCaptureInfo cuStreamGetCaptureInfo_v2
    cuStreamGetCaptureInfo_v3 cuGraphCreate cuGraphClone cuGraphDestroy cuGraphExecDestroy cuGraphInstantiate
    cuGraphInstantiateWithFlags cuGraphLaunch cuGraphUpload cuMemPoolCreate cuMemPoolDestroy cuMemPoolGetAttribute
    cuImportExternalMemory cuDestroyExternalMemory cuExternalMemoryGetMappedBuffer
    cuOccupancyMaxPotentialBlockSize cuOccupancyMaxPotentialBlockSizeWithFlags cuOccupancyMaxActiveClusters
    cuOccupancyMaxPotentialClusterSize cuTensorMapEncodeIm2col
    cuMemcpy2D_v2 cuMemcpy2DAsync_v2 cuMemcpy3D_v2 cuPointerGetAttribute cuPointerGetAttributes
    cuGetProcAddress cuGetProcAddress_v2 cuGetExportTable cuLinkCreate_v2 cuLibraryLoadData cuKernelGetFunction
}

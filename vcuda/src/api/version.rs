//! What CUDA version brought what: functions of the driver API, and PTX. `VCUDA_DRIVER_VERSION` plays a driver of one.

/// The driver that there is without the variable: CUDA 13.5, the newest that can be played.
pub const NEWEST: i32 = 13_050;

/// A version as the variable may have it: `12040` or `12.4`.
pub fn parse(text: &str) -> Option<i32> {
    match text.split_once('.') {
        Some((major, minor)) => {
            let (major, minor): (i32, i32) = (major.parse().ok()?, minor.parse().ok()?);
            (major < 100 && minor < 100).then_some(1000 * major + 10 * minor)
        }
        None => text.parse().ok().filter(|version| version % 10 == 0),
    }
}

/// `12.4`, for 12040.
pub fn name(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// The newest PTX ISA version that a driver knows: each toolkit since 11.0 brought the next one, but for 12.6.
pub fn newest_ptx(driver: i32) -> (u32, u32) {
    match (driver as u32 / 1000, driver as u32 % 1000 / 10) {
        (major @ 12, minor @ 6..) => (major - 4, minor - 1),
        (major, minor) => (major.saturating_sub(4), minor),
    }
}

/// Functions, and second and later variants of them, by the version that brought them: those that are not here are
/// older than any driver that can be played, or came with 64-bit addresses, in 3.2 or 4.0.
const FUNCTIONS: &[(i32, &str)] = &[
    (
        6_050,
        "cuGraphicsResourceSetMapFlags_v2 cuLinkAddData_v2 cuLinkAddFile_v2 cuLinkCreate_v2 \
         cuMemHostRegister_v2",
    ),
    (10_010, "cuStreamBeginCapture_v2"),
    (
        11_000,
        "cuDevicePrimaryCtxRelease_v2 cuDevicePrimaryCtxReset_v2 \
         cuDevicePrimaryCtxSetFlags_v2 cuIpcOpenMemHandle_v2",
    ),
    (11_030, "cuStreamGetCaptureInfo_v2"),
    (11_040, "cuCtxCreate_v3 cuDeviceGetUuid_v2"),
    (
        11_060,
        "cuArrayGetMemoryRequirements cuGraphNodeGetEnabled cuGraphNodeSetEnabled \
         cuMipmappedArrayGetMemoryRequirements",
    ),
    (
        11_070,
        "cuGraphAddBatchMemOpNode cuGraphBatchMemOpNodeGetParams \
         cuGraphBatchMemOpNodeSetParams cuGraphExecBatchMemOpNodeSetParams \
         cuMemGetHandleForAddressRange cuModuleGetLoadingMode cuStreamBatchMemOp_v2 \
         cuStreamWaitValue32_v2 cuStreamWaitValue64_v2 cuStreamWriteValue32_v2 \
         cuStreamWriteValue64_v2",
    ),
    (11_080, "cuLaunchKernelEx cuOccupancyMaxActiveClusters cuOccupancyMaxPotentialClusterSize"),
    (
        12_000,
        "cuCtxGetId cuGetProcAddress_v2 cuGraphAddKernelNode_v2 cuGraphExecGetFlags \
         cuGraphExecKernelNodeSetParams_v2 cuGraphExecUpdate_v2 cuGraphInstantiateWithParams \
         cuGraphKernelNodeGetParams_v2 cuGraphKernelNodeSetParams_v2 cuKernelGetAttribute \
         cuKernelGetFunction cuKernelSetAttribute cuKernelSetCacheConfig cuLibraryGetGlobal \
         cuLibraryGetKernel cuLibraryGetManaged cuLibraryGetModule \
         cuLibraryGetUnifiedFunction cuLibraryLoadData cuLibraryLoadFromFile cuLibraryUnload \
         cuStreamGetId cuTensorMapEncodeIm2col cuTensorMapEncodeTiled \
         cuTensorMapReplaceAddress",
    ),
    (
        12_010,
        "cuCoredumpGetAttribute cuCoredumpGetAttributeGlobal cuCoredumpSetAttribute \
         cuCoredumpSetAttributeGlobal cuCtxSetFlags cuMulticastAddDevice cuMulticastBindAddr \
         cuMulticastBindMem cuMulticastCreate cuMulticastGetGranularity cuMulticastUnbind",
    ),
    (12_020, "cuGraphExecNodeSetParams cuGraphNodeSetParams cuMemAdvise_v2 cuMemPrefetchAsync_v2"),
    (
        12_030,
        "cuFuncGetName cuGraphAddDependencies_v2 cuGraphAddNode_v2 \
         cuGraphConditionalHandleCreate cuGraphGetEdges_v2 cuGraphNodeGetDependencies_v2 \
         cuGraphNodeGetDependentNodes_v2 cuGraphRemoveDependencies_v2 cuKernelGetName \
         cuStreamBeginCaptureToGraph cuStreamGetCaptureInfo_v3 \
         cuStreamUpdateCaptureDependencies_v2",
    ),
    (
        12_040,
        "cuCtxFromGreenCtx cuCtxGetDevResource cuDevResourceGenerateDesc \
         cuDevSmResourceSplitByCount cuDeviceGetDevResource cuDeviceRegisterAsyncNotification \
         cuDeviceUnregisterAsyncNotification cuFuncGetParamInfo cuFuncIsLoaded cuFuncLoad \
         cuGreenCtxCreate cuGreenCtxDestroy cuGreenCtxGetDevResource cuGreenCtxRecordEvent \
         cuGreenCtxWaitEvent cuKernelGetParamInfo cuLibraryEnumerateKernels \
         cuLibraryGetKernelCount cuModuleEnumerateFunctions cuModuleGetFunctionCount \
         cuStreamGetGreenCtx",
    ),
    (
        12_050,
        "cuCtxCreate_v4 cuCtxRecordEvent cuCtxWaitEvent cuGreenCtxStreamCreate \
         cuKernelGetLibrary cuStreamGetCtx_v2",
    ),
    (
        12_080,
        "cuEventElapsedTime_v2 cuMemBatchDecompressAsync cuStreamGetDevice \
         cuTensorMapEncodeIm2colWide",
    ),
    (
        12_090,
        "cuLogsCurrent cuLogsDumpToFile cuLogsDumpToMemory cuLogsRegisterCallback \
         cuLogsUnregisterCallback",
    ),
    (
        13_000,
        "cuCtxGetDevice_v2 cuCtxSynchronize_v2 cuDeviceGetHostAtomicCapabilities \
         cuDeviceGetP2PAtomicCapabilities cuGreenCtxGetId cuMemDiscardAndPrefetchBatchAsync \
         cuMemDiscardBatchAsync cuMemGetDefaultMemPool cuMemGetMemPool \
         cuMemPrefetchBatchAsync cuMemSetMemPool cuMemcpy3DBatchAsync_v2 \
         cuMemcpyBatchAsync_v2",
    ),
];
const SINCE_BY_DEFAULT: i32 = 4_000;

/// The version that brought a function, variant and all.
pub fn since(name: &str) -> i32 {
    let has = |(_, names): &&(i32, &str)| names.split(' ').any(|other| other == name);
    FUNCTIONS.iter().find(has).map_or(SINCE_BY_DEFAULT, |&(since, _)| since)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_known() {
        let all = ["12.4", "12040", "13.5", "13050", "x", "12.4.1", "12045", ""].map(parse);
        let [a, b, c, d] = [12_040, 12_040, 13_050, 13_050].map(Some);
        assert_eq!(all, [a, b, c, d, None, None, None, None]);
        let ptx = [11_000, 11_080, 12_050, 12_060, 12_080, 13_000, 13_050].map(newest_ptx);
        assert_eq!(ptx, [(7, 0), (7, 8), (8, 5), (8, 5), (8, 7), (9, 0), (9, 5)]);
        let functions = ["cuInit", "cuMemAlloc_v2", "cuLibraryLoadData", "cuEventElapsedTime_v2"].map(since);
        assert_eq!(functions, [4_000, 4_000, 12_000, 12_080]);
    }
}

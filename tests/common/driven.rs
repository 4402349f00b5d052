//! Kernels of any source through a driver: that of a GPU, or vcuda's. `MEMO_TEST_DEVICE` asks for it by naming the device; without it
//! tests that include this run them in vcuda itself, where each launch has its own checks.

use std::cell::RefCell;
use std::collections::HashMap;

use cudarc::driver::sys;
use memo::check::test_stream;
use memo::gpu::{Arg, Launch, Stream, Tensor, compute_capability};

/// A source on the device under test, and what is allocated there.
pub struct Driven {
    stream: Stream,
    name: String,
    source: String,
    kept: RefCell<HashMap<u64, Tensor<u8>>>,
}

pub fn is_asked_for() -> bool {
    std::env::var_os("MEMO_TEST_DEVICE").is_some()
}

/// Whether the device under test runs what is compiled for this architecture; if not, says so.
pub fn runs(architecture: &str) -> bool {
    if !is_asked_for() {
        return true;
    }
    let stream = test_stream();
    let own = stream.gpu().architecture();
    // Hopper's own instructions are in the target of that name alone.
    let runs = match architecture.ends_with('a') {
        true => own == architecture,
        false => compute_capability(own) >= compute_capability(architecture),
    };
    if !runs {
        println!("not run: it is for sm_{architecture}, and this is sm_{own}");
    }
    runs
}

impl Driven {
    pub fn new(name: &str, source: String) -> Driven {
        Driven { stream: test_stream(), name: name.to_string(), source, kept: RefCell::default() }
    }

    /// Of bytes that are all set, so that what nobody writes is the same each time.
    pub fn alloc(&self, bytes: usize) -> u64 {
        let tensor = self.stream.alloc([bytes]).expect("device memory");
        self.stream.fill_bytes(&tensor, 0xff).expect("device memory");
        self.keep(tensor)
    }

    pub fn upload(&self, bytes: &[u8]) -> u64 {
        self.keep(self.stream.upload([bytes.len()], bytes).expect("device memory"))
    }

    fn keep(&self, tensor: Tensor<u8>) -> u64 {
        let address = tensor.address();
        self.kept.borrow_mut().insert(address, tensor);
        address
    }

    /// All that has been allocated at this address.
    pub fn read(&self, address: u64) -> Vec<u8> {
        self.stream
            .read(&self.kept.borrow()[&address])
            .unwrap_or_else(|error| panic!("{}: {error:#}", self.name))
    }

    /// Whether there was something.
    pub fn free(&self, address: u64) -> bool {
        self.kept.borrow_mut().remove(&address).is_some()
    }

    /// A tensor map of float16, swizzled by 128 bytes, as a kernel takes it; sizes are the driver's.
    pub fn map(address: u64, dims: &[u64], strides: &[u64], boxes: &[u32]) -> Vec<u8> {
        #[repr(C, align(64))]
        struct Map([u8; 128]);
        let (mut map, every) = (Map([0; 128]), vec![1u32; dims.len()]);
        // SAFETY: 128 bytes at a multiple of 64 to write, and as many sizes as there are dimensions.
        let made = unsafe {
            sys::cuTensorMapEncodeTiled(
                (&raw mut map).cast(),
                sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
                dims.len() as u32,
                address as *mut _,
                dims.as_ptr(),
                strides.as_ptr(),
                boxes.as_ptr(),
                every.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_NONE,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        made.result().expect("a tensor map");
        map.0.to_vec()
    }

    /// Queues a kernel of the source, each argument in its bytes; those past its parameters are buffers for later launches.
    pub fn launch(&self, kernel: &'static str, launch: Launch, args: &[Vec<u8>]) {
        let args: Vec<Arg> = args.iter().map(|bytes| Arg::all(bytes)).collect();
        let launched = self.stream.gpu().kernel_of(&self.name, &self.source, kernel).and_then(|kernel| {
            let given = kernel.parameters().map_or(args.len(), |count| count.min(args.len()));
            // SAFETY: the tests' kernels keep to the buffers that the tests give them.
            unsafe { kernel.launch(&self.stream, launch, &args[..given]) }
        });
        launched.unwrap_or_else(|error| panic!("{}: {error:#}", self.name));
    }
}

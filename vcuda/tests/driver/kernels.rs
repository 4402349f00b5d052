//! The kernels of these tests, in PTX.

/// Element `i` of an array of `n` words is `x`; a thread has one.
fn elementwise(name: &str, change: &str) -> String {
    format!(
        "\
.visible .entry {name}(.param .u64 data, .param .u32 n, .param .u32 k)
{{
    .reg .pred %p;
    .reg .b32 %i, %t, %n, %k, %x;
    .reg .b64 %at, %offset;
    mov.u32 %i, %ctaid.x;
    mov.u32 %t, %ntid.x;
    mul.lo.u32 %i, %i, %t;
    mov.u32 %t, %tid.x;
    add.u32 %i, %i, %t;
    ld.param.u32 %n, [n];
    setp.ge.u32 %p, %i, %n;
    @%p bra DONE;
    ld.param.u32 %k, [k];
    ld.param.u64 %at, [data];
    mul.wide.u32 %offset, %i, 4;
    add.u64 %at, %at, %offset;
    ld.global.u32 %x, [%at];
    {change} %x, %x, %k;
    st.global.u32 [%at], %x;
DONE:
    ret;
}}
"
    )
}

/// `add` and `scale` (data, n, k), `empty` (), `wild` (address): a store there, `bounded`: 64 threads at most.
pub fn ptx() -> String {
    let mut text = String::from(
        "\
.version 7.8
.target sm_80
.address_size 64
.visible .global .u32 counter = 7;
.visible .entry empty()
{
    ret;
}
.visible .entry bounded()
.maxntid 64, 1, 1
{
    ret;
}
.visible .entry wild(.param .u64 address)
{
    .reg .b64 %at;
    .reg .b32 %x;
    ld.param.u64 %at, [address];
    mov.u32 %x, 1;
    st.global.u32 [%at], %x;
    ret;
}
",
    );
    text.push_str(&elementwise("add", "add.u32"));
    text.push_str(&elementwise("scale", "mul.lo.u32"));
    text
}

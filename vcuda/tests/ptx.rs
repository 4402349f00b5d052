//! The PTX parser on NVRTC's output (`ptx/*.ptx`), on each syntactic form, and on text that is not PTX.

#[path = "ptx/errors.rs"]
mod errors;

use vcuda::ptx::ast::{Body, Function, Guard, Module, Operand, Operand::*, Space, Type};
use vcuda::ptx::parse;

const SAMPLES: [(&str, &str); 5] = [
    ("attention_sm80", include_str!("ptx/attention_sm80.ptx")),
    ("calls", include_str!("ptx/calls.ptx")),
    ("debug", include_str!("ptx/debug.ptx")),
    ("gemm_sm90a", include_str!("ptx/gemm_sm90a.ptx")),
    ("packed", include_str!("ptx/packed.ptx")),
];

const HEADER: &str = ".version 9.0\n.target sm_90a\n.address_size 64\n";

fn sample(name: &str) -> Module {
    let (_, text) = SAMPLES.iter().find(|(found, _)| *found == name).expect("a sample of that name");
    parse(text).expect(name)
}

fn module(text: &str) -> Module {
    parse(&format!("{HEADER}{text}")).expect(text)
}

/// The registers of a test's body: types, names before their numbers, and how many. `p` has no number.
const REGISTERS: [(&str, &str, u32); 5] =
    [(".pred", "%p", 4), (".pred", "p", 1), (".b32", "%r", 8), (".b64", "%rd", 4), (".f32", "%f", 4)];

/// A kernel's body from its statements, with a few registers declared.
fn body(statements: &str) -> Body {
    let declared = REGISTERS.map(|(ty, name, count)| match count {
        1 => format!(".reg {ty} {name}; "),
        _ => format!(".reg {ty} {name}<{count}>; "),
    });
    let registers = declared.concat();
    let text = format!(".entry k(.param .u64 k_param_0) {{ {registers}\n{statements}\n}}");
    module(&text).functions.remove(0).body.expect("a body")
}

/// The operands of the first instruction; registers print as their names.
fn operands(statements: &str) -> Vec<Operand> {
    body(statements).instructions.remove(0).operands
}

fn reg(name: &str) -> Operand {
    let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let number: u32 = name[prefix.len()..].parse().unwrap_or(0);
    let before = REGISTERS.iter().take_while(|(_, name, _)| *name != prefix).map(|(_, _, count)| count);
    Reg(before.sum::<u32>() + number)
}

fn predicate(name: &str) -> u32 {
    let Reg(id) = reg(name) else { panic!("{name}") };
    id
}

fn address(base: Operand, offset: i64) -> Operand {
    Address(Box::new(base), offset)
}

fn function<'m>(module: &'m Module, name: &str) -> &'m Function {
    module.functions.iter().find(|f| f.name == name).expect(name)
}

/// The error of a module whose first line is line 4, after the header.
fn error(text: &str) -> String {
    parse(&format!("{HEADER}{text}")).expect_err(text).to_string()
}

#[test]
fn counts_in_nvrtc_output() {
    for (name, functions, variables, instructions) in
        [("attention_sm80", 2, 1, 214), ("calls", 6, 11, 213), ("debug", 2, 0, 25), ("gemm_sm90a", 1, 1, 166)]
    {
        let module = sample(name);
        let bodies = module.functions.iter().filter_map(|f| f.body.as_ref());
        let count: usize = bodies.map(|b| b.instructions.len()).sum();
        assert_eq!(
            (module.functions.len(), module.variables.len(), count),
            (functions, variables, instructions),
            "{name}"
        );
        assert_eq!(module.version, (9, 0));
    }
}

#[test]
fn headers_and_files() {
    let module = sample("debug");
    assert_eq!(module.target, "sm_90a");
    assert_eq!(module.files, [(1, "dbg.cu".to_string())]);
    assert_eq!(sample("attention_sm80").target, "sm_80");
}

#[test]
fn kernel_signature_and_directives() {
    let module = sample("calls");
    let kernel = function(&module, "forms");
    assert!(kernel.is_kernel);
    let params: Vec<_> = kernel.params.iter().map(|p| (p.ty, p.align, p.size_bytes)).collect();
    assert_eq!(
        params,
        [(Type::U64, 8, 8), (Type::U64, 8, 8), (Type::B8, 8, 24), (Type::B8, 16, 48), (Type::U32, 4, 4)]
    );
    assert_eq!(kernel.directives.max_ntid, Some([128, 1, 1]));
    assert_eq!(kernel.directives.min_ctas_per_sm, Some(2));

    let module = module_with_all_directives();
    let directives = &module.functions[0].directives;
    assert_eq!(directives.req_ntid, Some([8, 4, 2]));
    assert_eq!(directives.cluster, Some([2, 1, 1]));
    assert_eq!(directives.max_registers, Some(168));
}

fn module_with_all_directives() -> Module {
    module(
        ".visible .entry k(.param .u64 .ptr .global .align 16 a, .param .align 64 .b8 map[128])
         .reqntid 8, 4, 2 .reqnctapercluster 2 .explicitcluster .maxnreg 168 .pragma \"nounroll\"; { ret; }",
    )
}

#[test]
fn a_pointers_alignment_is_not_the_parameters() {
    let params = module_with_all_directives().functions.remove(0).params;
    assert_eq!((params[0].align, params[0].size_bytes), (8, 8));
    assert_eq!((params[1].align, params[1].size_bytes), (64, 128));
}

#[test]
fn declaration_and_definition_are_one_function() {
    let module = sample("calls");
    let helper = function(&module, "_Z2f0f");
    assert!(helper.body.is_some() && !helper.is_kernel);
    assert_eq!((helper.returns.len(), helper.params.len()), (1, 1));
    assert!(function(&module, "vprintf").body.is_none());
    assert_eq!(function(&module, "_Z7makebigf").returns[0].size_bytes, 48);
}

#[test]
fn variables_and_initial_values() {
    let module = sample("calls");
    let variable = |name: &str| module.variables.iter().find(|v| v.name == name).expect(name);
    assert_eq!(variable("coefs").space, Space::Const);
    assert_eq!(variable("coefs").init, [0, 0, 128, 63, 0, 0, 32, 192, 0, 0, 64, 64]);
    assert_eq!(variable("coefs").size_bytes, 16);
    assert_eq!(variable("where").relocations, [(0, "table".to_string(), 8)]);
    assert_eq!(variable("fns").relocations, [(0, "_Z2f0f".to_string(), 0), (8, "_Z2f1f".to_string(), 0)]);
    let shared = variable("dyn");
    assert_eq!(
        (shared.space, shared.align, shared.size_bytes, shared.is_extern),
        (Space::Shared, 16, 0, true)
    );
}

#[test]
fn addresses_of_packed_structures() {
    let module = sample("packed");
    let variable = |name: &str| module.variables.iter().find(|v| v.name == name).expect(name);
    assert_eq!(variable("packed").relocations, [(1, "table".to_string(), 4)]);
    assert_eq!(variable("packed").init, [3, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(variable("pairs").relocations, [(8, "$str".to_string(), 0), (24, "$str$1".to_string(), 0)]);
    assert_eq!(variable("pairs").init[16], 2);
    assert_eq!(variable("managed").init, 3i32.to_le_bytes());
}

#[test]
fn initial_values_by_type_and_shape() {
    let cases: [(&str, usize, &[u8]); 11] = [
        (".global .u32 x = 0x10;", 4, &[16, 0, 0, 0]),
        (".global .s16 x[3] = {-1, 010, 0b11U};", 6, &[255, 255, 8, 0, 3, 0]),
        (".global .f32 x = 1.5;", 4, &[0, 0, 0xc0, 0x3f]),
        (".global .f32 x[2] = {0f3F800000, -0f3F800000};", 8, &[0, 0, 0x80, 0x3f, 0, 0, 0x80, 0xbf]),
        (".global .f64 x = 0d3FF8000000000000;", 8, &[0, 0, 0, 0, 0, 0, 0xf8, 0x3f]),
        (".global .b8 x[] = {1, 2, 3};", 3, &[1, 2, 3]),
        (".const .b8 x[2][3] = {{1}, {4, 5, 6}};", 6, &[1, 0, 0, 4, 5, 6]),
        (".global .b8 x[][2] = {{1, 2}, {3}};", 4, &[1, 2, 3]),
        (".global .v4 .u8 x[2] = {{1, 2, 3, 4}, {5}};", 8, &[1, 2, 3, 4, 5]),
        (".global .u8 x = (2 + 3) * 4 - 1 << 1 | 1 & ~0;", 1, &[39]),
        (".global .u8 x = 7 / 2 % 2 ^ 0xF0;", 1, &[0xf1]),
    ];
    for (text, size, bytes) in cases {
        let variable = module(text).variables.remove(0);
        assert_eq!((variable.size_bytes, &variable.init[..]), (size, bytes), "{text}");
    }
}

#[test]
fn several_names_in_one_declaration() {
    let module = module(".global .align 8 .b32 a, b[4], c = 5;");
    let found: Vec<_> = module.variables.iter().map(|v| (&v.name[..], v.align, v.size_bytes)).collect();
    assert_eq!(found, [("a", 8, 4), ("b", 8, 16), ("c", 8, 4)]);
}

#[test]
fn vector_variables_align_to_their_width() {
    assert_eq!(module(".global .v4 .f32 x;").variables[0].align, 16);
}

#[test]
fn linkage_words() {
    let module = module(
        ".extern .global .b32 a; .global .b32 a = 1; .weak .const .b32 c; .common .global .b32 d[7];
         .extern .func f(.param .b32 x) .noreturn; .weak .func g { ret; }",
    );
    assert_eq!(module.variables.len(), 3);
    assert_eq!((module.variables[0].is_extern, module.variables[0].init[0]), (false, 1));
    assert_eq!(module.functions.len(), 2);
}

#[test]
fn register_operands() {
    assert_eq!(operands("add.s32 %r1, %r2, -5;"), [reg("%r1"), reg("%r2"), Int(-5)]);
    assert_eq!(operands("atom.global.add.u32 _, [%rd1], %r2;")[0], Sink);
    assert_eq!(operands("and.pred p, %p1, !%p2;"), [reg("p"), reg("%p1"), NotReg(predicate("%p2"))]);
    let pair = |a, b| Pair(Box::new(a), Box::new(b));
    assert_eq!(operands("setp.eq.s32 %p1|%p2, %r1, 0;")[0], pair(reg("%p1"), reg("%p2")));
    assert_eq!(operands("elect.sync _|%p2, -1;")[0], pair(Sink, reg("%p2")));
}

#[test]
fn immediate_operands() {
    for (text, value) in [
        ("0x7fffffffU", 0x7fff_ffff),
        ("-2147483648", -2147483648),
        ("0xffffffffffffffff", -1),
        ("017", 15),
        ("0", 0),
        ("0b1010", 10),
        ("(1 << 4) + 3", 19),
        ("WARP_SZ", 32),
    ] {
        assert_eq!(operands(&format!("mov.b32 %r1, {text};"))[1], Int(value), "{text}");
    }
    assert_eq!(operands("mov.f32 %f1, 0f3F800000;")[1], F32(0x3f80_0000));
    assert_eq!(operands("mov.f64 %rd1, 0dBFF0000000000000;")[1], F64((-1f64).to_bits()));
    assert_eq!(operands("mov.f32 %f1, 0dBFF0000000000000;")[1], F32((-1f32).to_bits()));
    assert_eq!(operands("mov.f32 %f1, -2.5e-1;")[1], F32((-0.25f32).to_bits()));
}

#[test]
fn address_operands() {
    let of = |text: &str| operands(&format!("ld.u32 %r1, {text};")).remove(1);
    assert_eq!(of("[%rd1]"), address(reg("%rd1"), 0));
    assert_eq!(of("[%rd1+16]"), address(reg("%rd1"), 16));
    assert_eq!(of("[%r1+-4]"), address(reg("%r1"), -4));
    assert_eq!(of("[%r1-4]"), address(reg("%r1"), -4));
    assert_eq!(of("[k_param_0+4]"), address(Symbol("k_param_0".into(), 4), 0));
    assert_eq!(of("[1024]"), address(Int(1024), 0));
}

#[test]
fn vectors_and_tensor_addresses() {
    let vector = Vector(vec![reg("%r1"), reg("%r2"), Sink, reg("%r3")]);
    assert_eq!(operands("ld.global.v4.b32 {%r1, %r2, _, %r3}, [%rd1];")[0], vector);
    let coordinates = vec![reg("%r1"), Int(0)];
    assert_eq!(
        operands(
            "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r3], [%rd1, {%r1, 0}], [%r4];"
        ),
        [address(reg("%r3"), 0), TensorAddress(Box::new(reg("%rd1")), coordinates), address(reg("%r4"), 0)]
    );
}

#[test]
fn opcodes_are_split() {
    let opcode = |text: &str| body(text).instructions.remove(0).opcode;
    assert_eq!(opcode("ld.global.nc.L1::no_allocate.v4.f32 {_,_,_,%f1}, [%rd1];")[3], "L1::no_allocate");
    assert_eq!(opcode("bar .sync 0;")[..], ["bar", "sync"]);
    assert_eq!(opcode("ret;")[..], ["ret"]);
}

#[test]
fn special_registers_and_symbols() {
    assert_eq!(operands("mov.u32 %r1, %ctaid.y;")[1], Special("ctaid.y".into()));
    assert_eq!(operands("mov.u64 %rd1, %clock64;")[1], Special("clock64".into()));
    assert_eq!(operands("mov.b32 %r1, %envreg31;")[1], Special("envreg31".into()));
    assert_eq!(operands(".shared .b8 tile[8]; mov.u32 %r1, tile+4;")[1], Symbol("tile".into(), 4));
    let module = module(".func f; .entry k { .reg .b64 %rd; mov.u64 %rd, f; }");
    assert_eq!(
        function(&module, "k").body.as_ref().expect("a body").instructions[0].operands[1],
        Function("f".into())
    );
}

#[test]
fn vector_registers_have_components() {
    let body = body(".reg .v4 .f32 v; ld.global.v4.f32 v, [%rd1]; mov.f32 %f1, v.z;");
    let first = REGISTERS.iter().map(|(_, _, count)| count).sum::<u32>();
    assert_eq!(body.instructions[0].operands[0], Vector((first..first + 4).map(Reg).collect()));
    assert_eq!(body.instructions[1].operands[1], Reg(first + 2));
}

#[test]
fn guards_and_branches() {
    let body = body("top: @%p1 bra end;\n@!%p2 bra.uni top;\nend: ret;\nlast:");
    assert_eq!(body.instructions[0].guard, Some(Guard { reg: predicate("%p1"), negated: false }));
    assert_eq!(body.instructions[0].operands, [Label(2)]);
    assert_eq!(body.instructions[1].guard, Some(Guard { reg: predicate("%p2"), negated: true }));
    assert_eq!(body.instructions[1].operands, [Label(0)]);
}

#[test]
fn branch_tables_become_label_lists() {
    let body = body("ts: .branchtargets a, b, a;\n{ brx.idx %r1, ts; }\na: ret;\nb: ret;");
    assert_eq!(body.instructions[0].operands, [reg("%r1"), List(vec![Label(1), Label(2), Label(1)])]);
}

#[test]
fn scopes_have_their_own_registers_labels_and_variables() {
    let body = body(
        ".param .b32 a;
         { .reg .pred p; .param .b32 a; W: st.param.b32 [a], 1; @p bra W; @!p bra D; D: }
         { .reg .pred p; .param .b32 a; W: st.param.b32 [a], 2; @p bra W; bra out; }
         st.param.b32 [a], 3;
         out: ret;",
    );
    let names: Vec<_> = body.variables.iter().map(|v| &v.name[..]).collect();
    assert_eq!(names.len(), 3);
    assert!(names[0] == "a" && names[1] != "a" && names[2] != "a" && names[1] != names[2], "{names:?}");
    let target = |i: usize| body.instructions[i].operands[0].clone();
    assert_eq!(target(0), address(Symbol(names[1].into(), 0), 0));
    assert_eq!(target(3), address(Symbol(names[2].into(), 0), 0));
    assert_eq!(target(6), address(Symbol("a".into(), 0), 0));
    assert_eq!([target(1), target(2), target(4), target(5)], [Label(0), Label(3), Label(3), Label(7)]);
    let guards: Vec<_> = body.instructions.iter().filter_map(|i| i.guard).map(|g| g.reg).collect();
    assert!(guards[0] == guards[1] && guards[1] != guards[2] && guards[0] != predicate("p"), "{guards:?}");
}

#[test]
fn a_body_variable_does_not_hide_a_global_elsewhere() {
    let module = module(
        ".global .b32 x; .entry k { .reg .b32 %r; { .shared .b32 x; st.shared.b32 [x], 1; } ld.global.b32 %r, [x]; }",
    );
    let body = module.functions[0].body.as_ref().expect("a body");
    assert_eq!(body.instructions[0].operands[0], address(Symbol(body.variables[0].name.clone(), 0), 0));
    assert_ne!(body.variables[0].name, "x");
    assert_eq!(body.instructions[1].operands[1], address(Symbol("x".into(), 0), 0));
}

#[test]
fn calls_have_one_shape() {
    let module = module(
        ".func (.param .b32 r) f(.param .b32 a) { ret; } .func g { ret; }
         .entry k { .reg .b64 %rd; .reg .b32 %r;
           { .param .b32 a; .param .b32 r; call.uni (r), f, (a); }
           call g;
           { .param .b32 r; proto: .callprototype (.param .b32 _) _ (.param .b32 _, .param .align 4 .b8 _[12]) .noreturn;
             call (r), %rd, (r, 5), proto; }
         }",
    );
    let body = function(&module, "k").body.as_ref().expect("a body");
    let variable = |i: usize| Symbol(body.variables[i].name.clone(), 0);
    assert_eq!(
        body.instructions[0].operands,
        [List(vec![variable(1)]), Function("f".into()), List(vec![variable(0)])]
    );
    assert_eq!(body.instructions[1].operands, [List(vec![]), Function("g".into()), List(vec![])]);
    assert_eq!(
        body.instructions[2].operands,
        [List(vec![variable(2)]), Reg(0), List(vec![variable(2), Int(5)]), Function("proto".into())]
    );
}

#[test]
fn source_lines_follow_loc() {
    let body = body(
        "mov.u32 %r1, 1; .loc 2 17 5\nmov.u32 %r1, 2; .loc 1 30 9, function_name $L__s+7, inlined_at 2 17 5
         mov.u32 %r1, 3; .loc 1 0 9\nmov.u32 %r1, 4;",
    );
    let sources: Vec<_> = body.instructions.iter().map(|i| i.source).collect();
    assert_eq!(sources, [None, Some((2, 17)), Some((1, 30)), None]);
    let lines: Vec<_> = body.instructions.iter().map(|i| i.line).collect();
    assert_eq!(lines, [5, 6, 7, 8]);
}

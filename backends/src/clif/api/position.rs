//! `reset`, `pos` and `rewind`.

use cranelift_codegen::ir::InstBuilder;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I32, I64};
use tcc_runtime::abi::Status;

use super::instance::{KEPT, LOGITS_READY, POS};
use super::{Api, check_instance, fail_if, is_zero, return_ok, status_signature};
use crate::clif::func::signature;
use crate::code::{EmitError, Function};

/// `(instance)`: back to position 0.
pub(super) fn reset(api: &Api<'_>) -> Result<Function, EmitError> {
    api.entry(api.baseline, "reset", &signature(&[I64], &[]), |f| {
        let instance = f.param(0);
        let null = is_zero(f, instance);
        f.return_if(null, |_| vec![]);
        for field in [POS, KEPT, LOGITS_READY] {
            field.set(f, 0, instance);
        }
        f.return_(&[]);
    })
}

/// `(instance) -> u32`: tokens evaluated; 0 for null.
pub(super) fn pos(api: &Api<'_>) -> Result<Function, EmitError> {
    api.entry(api.baseline, "pos", &signature(&[I64], &[I32]), |f| {
        let instance = f.param(0);
        let null = is_zero(f, instance);
        f.return_if(null, |f| vec![f.i32(0)]);
        let pos = POS.load(f, instance);
        f.return_(&[pos]);
    })
}

/// `(instance, pos) -> status`: forgets the tokens at `pos` and later.
pub(super) fn rewind(api: &Api<'_>) -> Result<Function, EmitError> {
    api.entry(api.baseline, "rewind", &status_signature(&[I64, I32]), |f| {
        let (instance, to) = (f.param(0), f.param(1));
        check_instance(f, instance);
        let pos = POS.load(f, instance);
        let ahead = f.ins().icmp(IntCC::UnsignedGreaterThan, to, pos);
        fail_if(f, ahead, Status::ARG);
        // Nothing to forget: the last token's row and logits stay valid.
        let moves = f.ins().icmp(IntCC::NotEqual, to, pos);
        f.if_then(moves, |f| {
            POS.store(f, to, instance);
            KEPT.set(f, 0, instance);
            LOGITS_READY.set(f, 0, instance);
        });
        return_ok(f);
    })
}

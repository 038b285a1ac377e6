//! The products of a model as C++ text for the vendor's tile library, a file for each.

use tcc_backends::isa::matrix::lower::matmul::search;
use tcc_backends::isa::matrix::source;
use tcc_ir::encoding::Encoding;

use super::Compiled;
use super::tiles::{Decision, Product};
use crate::driver::VERSION;
use crate::error::Error;

/// Ends of file names, and the texts of all products that have a tile.
///
/// Errors: a product that the tile library has no words for.
pub fn products(compiled: &Compiled) -> Result<Vec<(String, String)>, Error> {
    let machine = &compiled.model.machine;
    let mut files = vec![];
    for choice in &compiled.choices {
        let (Product::Coupled(shape), Some(Decision::Coupled(tile))) = (&choice.product, choice.decision) else {
            continue;
        };
        let program = search::alone(shape, tile, machine)?;
        let product = choice.product.to_string();
        let residual = if shape.residual { " + residual f32[m, n]" } else { "" };
        let about = [
            format!("tcc {VERSION}, product {product}, tile {tile}."),
            format!("out f32[m, n] = (q s8[m, k] · weights[n, k]) · act_scale f32[m] · scale f32{residual}."),
            format!("q stands in fractals by column, weights as {}: docs/encodings.md.", Encoding::W2Nz(shape.panel)),
        ];
        let failed = |source| Error::Source { product: product.clone(), source };
        let text = source::text(&program, &about).map_err(failed)?;
        let residual = if shape.residual { "_residual" } else { "" };
        files.push((format!(".m{}_n{}_k{}{residual}.cpp", shape.m, shape.n, shape.k), text));
    }
    match files.is_empty() {
        false => Ok(files),
        true => Err(Error::usage(
            format!(
                "the model has no product on the cube of machine '{}', whose source could be written",
                machine.name
            ),
            "leave out --emit source, or give a machine whose cube and vector unit share a core",
        )),
    }
}

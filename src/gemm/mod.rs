//! Matrix products of float32 matrices.
//!
//! | file | what it holds |
//! |---|---|
//! | `tile` | the micro-kernels: one tile of a product in registers, for each instruction set |
//! | `packed` | weights packed for them once and multiplied many times |
//! | `product` | matrices that are multiplied once, packed block by block |
//! | `transpose` | turning a matrix around |
//! | `transposed` | sums over pixels, where the left-hand matrix is read across its rows |
//!
//! The order of every sum, and with it every bit of a result, is the same for any number of threads:
//! tasks are blocks of the *output*, and the parts of a sum depend on its length alone.

mod packed;
mod product;
mod tile;
mod transpose;
mod transposed;

pub use packed::{
    Finish, Keep, LONG_SUM, Lhs, PackedMatrix, PackedRows, SHORT_SUM, Source, Storage,
};
pub use product::{MatRef, multiply_once, product, product_into};
pub use tile::{Bounds, measure_peak, name as kernel_name, shape as tile_shape};
pub use transpose::transpose;
pub use transposed::{Pixels, add_product};

//! Binding a file's tensors by name, with their shapes checked.

use std::sync::Arc;

use gristmill_gguf::{File, Source, TensorInfo};
use gristmill_quantize::types;

use crate::architecture::Norm;
use crate::error::Error;
use crate::matmul::Matrix;

/// Finds tensors of a file by name.
pub(crate) struct Loader<'a> {
    file: &'a File,
    /// What norms divide by at least.
    pub epsilon: f32,
    /// The architecture's norm.
    pub norm: Norm,
}

/// A matrix product with what belongs to it.
#[derive(Debug)]
pub(crate) struct Linear {
    /// Name of the weight tensor.
    pub name: Arc<str>,
    pub weight: Matrix,
    pub bias: Option<Vec<f32>>,
    /// Multiplies the product (NVFP4's per-tensor scale).
    pub scale: Option<f32>,
}

/// Matrices of one shape stored in one tensor: experts, or heads of latent attention.
#[derive(Debug)]
pub(crate) struct Stack {
    /// Name of the weight tensor.
    pub name: Arc<str>,
    /// The rows of all.
    pub matrix: Matrix,
    /// Number of matrices.
    pub count: usize,
    /// Rows of each.
    pub rows: usize,
    /// One bias after another.
    pub bias: Option<Vec<f32>>,
    pub scales: Option<Vec<f32>>,
}

/// Normalisation with its weights.
#[derive(Debug, Clone)]
pub(crate) struct NormWeights {
    pub kind: Norm,
    pub epsilon: f32,
    /// None: normalised only.
    pub weight: Option<Vec<f32>>,
    pub bias: Option<Vec<f32>>,
}

impl<'a> Loader<'a> {
    pub fn new(file: &'a File, norm: Norm, epsilon: f32) -> Self {
        Self {
            file,
            epsilon,
            norm,
        }
    }

    /// Whether the file has the tensor.
    pub fn has(&self, name: &str) -> bool {
        self.file.find(name).is_some()
    }

    fn find(&self, name: &str) -> Option<(usize, &'a TensorInfo)> {
        let at = self.file.find(name)?;
        Some((at, &self.file.tensors()[at]))
    }

    /// The shape of a tensor, or that it is missing.
    pub fn shape(&self, name: &str) -> Result<&'a [u64], Error> {
        let (_, info) = self.find(name).ok_or_else(|| missing(name))?;
        Ok(&info.shape)
    }

    /// A tensor of any shape as f32, if the file has it.
    pub fn values(&self, name: &str) -> Result<Option<Vec<f32>>, Error> {
        let Some((at, info)) = self.find(name) else {
            return Ok(None);
        };
        let mut values = vec![0f32; info.elements() as usize];
        types::decode(info.ty, &self.file.tensor_data(at)?, &mut values)
            .map_err(|_| unusable(name, info))?;
        Ok(Some(values))
    }

    /// A tensor of `len` values, if the file has it.
    pub fn vector(&self, name: &str, len: usize) -> Result<Option<Vec<f32>>, Error> {
        if let Some((_, info)) = self.find(name)
            && info.elements() != len as u64
        {
            return Err(Error::Shape {
                name: name.to_owned(),
                expected: format!("{len} values"),
                found: info.shape.clone(),
            });
        }
        self.values(name)
    }

    /// One number, if the file has it.
    pub fn scalar(&self, name: &str) -> Result<Option<f32>, Error> {
        Ok(self.vector(name, 1)?.map(|v| v[0]))
    }

    /// All rows of a tensor of `count` matrices.
    fn matrix(&self, name: &str, cols: usize, count: usize) -> Result<Option<Matrix>, Error> {
        let Some((at, info)) = self.find(name) else {
            return Ok(None);
        };
        let planes = info.shape.get(2).copied().unwrap_or(1);
        let fits = info.shape.len() <= 3
            && info.row_len() == cols as u64
            && info.rows() > 0
            && planes == count as u64;
        if !fits {
            let expected = match count {
                1 => format!("rows of {cols}"),
                count => format!("{count} matrices with rows of {cols}"),
            };
            return Err(Error::Shape {
                name: name.to_owned(),
                expected,
                found: info.shape.clone(),
            });
        }
        let data = self.file.tensor_data(at)?;
        Matrix::new(info.ty, info.rows() as usize, cols, data)
            .map(Some)
            .map_err(|_| unusable(name, info))
    }

    /// A table of rows that must be there.
    pub fn table(&self, name: &str, cols: usize) -> Result<Matrix, Error> {
        self.matrix(name, cols, 1)?.ok_or_else(|| missing(name))
    }

    /// `{stem}.weight` with `{stem}.bias` and `{stem}.scale`, if the file has it.
    pub fn linear(&self, stem: &str, cols: usize) -> Result<Option<Linear>, Error> {
        let Some(linear) = self.unscaled(stem, cols)? else {
            return Ok(None);
        };
        let scale = self.scalar(&format!("{stem}.scale"))?;
        Ok(Some(Linear { scale, ..linear }))
    }

    /// The same where `{stem}.scale` is something else.
    pub fn unscaled(&self, stem: &str, cols: usize) -> Result<Option<Linear>, Error> {
        let name = format!("{stem}.weight");
        let Some(weight) = self.matrix(&name, cols, 1)? else {
            return Ok(None);
        };
        Ok(Some(Linear {
            bias: self.vector(&format!("{stem}.bias"), weight.rows())?,
            scale: None,
            name: name.into(),
            weight,
        }))
    }

    /// A product that the model cannot do without, giving `rows` values.
    pub fn product(&self, stem: &str, cols: usize, rows: usize) -> Result<Linear, Error> {
        let linear = self.linear(stem, cols)?;
        let linear = linear.ok_or_else(|| missing(&format!("{stem}.weight")))?;
        self.check_rows(&linear, rows)?;
        Ok(linear)
    }

    /// That a product gives `rows` values.
    pub fn check_rows(&self, linear: &Linear, rows: usize) -> Result<(), Error> {
        if linear.weight.rows() == rows {
            return Ok(());
        }
        Err(Error::Shape {
            name: linear.name.to_string(),
            expected: format!("{rows} rows"),
            found: self.shape(&linear.name)?.to_vec(),
        })
    }

    /// `{stem}.weight` as `count` matrices with rows of `cols`, if the file has it.
    pub fn stack(&self, stem: &str, cols: usize, count: usize) -> Result<Option<Stack>, Error> {
        let name = format!("{stem}.weight");
        let Some(matrix) = self.matrix(&name, cols, count)? else {
            return Ok(None);
        };
        Ok(Some(Stack {
            rows: matrix.rows() / count,
            count,
            bias: self.vector(&format!("{stem}.bias"), matrix.rows())?,
            matrix,
            scales: self.vector(&format!("{stem}.scale"), count)?,
            name: name.into(),
        }))
    }

    /// The norm `{stem}` over `len` values, if the file has it.
    pub fn norm(&self, stem: &str, len: usize) -> Result<Option<NormWeights>, Error> {
        let mut weight = self.vector(&format!("{stem}.weight"), len)?;
        if weight.is_none() {
            // Falcon-H1's files have a norm without the suffix.
            weight = self.vector(stem, len)?;
        }
        let Some(weight) = weight else {
            return Ok(None);
        };
        Ok(Some(NormWeights {
            weight: Some(weight),
            bias: self.vector(&format!("{stem}.bias"), len)?,
            ..self.plain_norm()
        }))
    }

    /// A norm without weights.
    pub fn plain_norm(&self) -> NormWeights {
        NormWeights {
            kind: self.norm,
            epsilon: self.epsilon,
            weight: None,
            bias: None,
        }
    }
}

/// The error for a tensor that is not there.
pub(crate) fn missing(name: &str) -> Error {
    Error::MissingTensor {
        name: name.to_owned(),
    }
}

fn unusable(name: &str, info: &TensorInfo) -> Error {
    Error::Type {
        name: name.to_owned(),
        ty: info.ty,
        problem: "holds no weights",
    }
}

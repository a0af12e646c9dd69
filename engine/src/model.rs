//! A model: hyper-parameters and weights of a GGUF file, mapped.

use std::path::Path;
use std::sync::Arc;

use gristmill_gguf::{File, Metadata, Source};
use gristmill_quantize::Isa;

use crate::architecture;
use crate::attention::Bias;
use crate::error::Error;
use crate::gemma::PerLayer;
use crate::layer::Layer;
use crate::matmul::Matrix;
use crate::parameters::Parameters;
use crate::pool::Pool;
use crate::pooling::{Classifier, Pooling};
use crate::session::{Session, SessionOptions};
use crate::t5::T5;
use crate::weights::{Linear, Loader, NormWeights, missing};

/// How a model is opened.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Threads; as many as the process may use CPUs, or as `GRIST_THREADS` says, without.
    pub threads: Option<usize>,
}

/// Divisors of the rotation's frequencies.
#[derive(Debug, Default)]
pub(crate) struct RopeFactors {
    always: Option<Vec<f32>>,
    long: Option<Vec<f32>>,
    short: Option<Vec<f32>>,
}

impl RopeFactors {
    /// Those for a session of this context.
    pub fn choose(&self, context: usize, original: usize) -> Option<&[f32]> {
        let by_length = match context > original {
            true => self.long.as_deref(),
            false => self.short.as_deref(),
        };
        self.always.as_deref().or(by_length)
    }
}

/// A model that can be run. Weights stay in the mapped file in their stored types.
#[derive(Debug)]
pub struct Model {
    file: File,
    pub(crate) parameters: Parameters,
    pub(crate) embedding: Matrix,
    pub(crate) embedding_norm: Option<NormWeights>,
    /// Learned positions, added to embeddings.
    pub(crate) positions: Option<Matrix>,
    /// What the first token type adds.
    pub(crate) token_type: Option<Vec<f32>>,
    pub(crate) layers: Vec<Layer>,
    pub(crate) per_layer: Option<PerLayer>,
    pub(crate) output_norm: Option<NormWeights>,
    pub(crate) output: Option<Linear>,
    pub(crate) t5: Option<T5>,
    pub(crate) classifier: Option<Classifier>,
    pub(crate) factors: RopeFactors,
    pub(crate) pool: Arc<Pool>,
}

impl Model {
    /// Maps a GGUF file (or the split set it belongs to) and binds its weights.
    ///
    /// # Errors
    /// If the file is no sound GGUF file, its architecture is not known, or keys and tensors do not
    /// fit it.
    pub fn open(path: &Path, options: &LoadOptions) -> Result<Self, Error> {
        Self::from_file(File::open(path)?, options)
    }

    /// Binds the weights of an open file.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_file(file: File, options: &LoadOptions) -> Result<Self, Error> {
        let metadata = file.metadata();
        let name = metadata.str("general.architecture").unwrap_or("");
        let row = architecture::find(name).ok_or_else(|| Error::Architecture {
            found: name.to_owned(),
        })?;
        let parameters = Parameters::read(metadata, row, file.tensors().len())?;
        let loader = Loader::new(&file, parameters.norm, parameters.epsilon);
        let width = parameters.width;
        let embedding = loader.table("token_embd.weight", width)?;
        let heads = parameters.layers.iter().map(|l| l.heads).max().unwrap_or(0);
        let bias = (parameters.alibi > 0.0).then(|| Arc::new(Bias::alibi(heads, parameters.alibi)));
        let t5 = T5::load(&loader, metadata, &parameters)?;
        let count = if t5.is_some() {
            0
        } else {
            parameters.layers.len()
        };
        let layers = (0..count)
            .map(|index| Layer::load(&loader, metadata, &parameters, index, bias.as_ref()))
            .collect::<Result<Vec<_>, _>>()?;
        let post_norm = layers.iter().any(Layer::ends_normalised);
        let output_norm = match loader.norm(row.output_norm, width)? {
            Some(norm) => Some(norm),
            None if post_norm || t5.is_some() => None,
            None if parameters.norm == architecture::Norm::Layer => Some(loader.plain_norm()),
            None => return Err(missing(&format!("{}.weight", row.output_norm))),
        };
        let embedding_norm = match row.output_norm {
            "token_embd_norm" => None,
            _ => loader.norm("token_embd_norm", width)?,
        };
        let output = match loader.linear("output", width)? {
            Some(output) => Some(output),
            // Tied to the embedding, but for a bias of its own.
            None => {
                let bias = loader.vector("output.bias", embedding.rows())?;
                bias.map(|bias| Linear {
                    name: "token_embd.weight".into(),
                    weight: embedding.clone(),
                    bias: Some(bias),
                    scale: None,
                })
            }
        };
        let model = Self {
            embedding_norm,
            positions: match loader.has("position_embd.weight") {
                true => Some(loader.table("position_embd.weight", width)?),
                false => None,
            },
            token_type: loader.values("token_types.weight")?.map(|mut types| {
                types.truncate(width);
                types
            }),
            per_layer: PerLayer::load(&loader, metadata, &parameters)?,
            output_norm,
            output,
            t5,
            classifier: Classifier::load(&loader, width)?,
            factors: RopeFactors {
                always: loader.values("rope_freqs.weight")?,
                long: loader.values("rope_factors_long.weight")?,
                short: loader.values("rope_factors_short.weight")?,
            },
            pool: Arc::new(Pool::new(options.threads)),
            layers,
            embedding,
            parameters,
            file,
        };
        Ok(model)
    }

    /// The file's metadata.
    pub fn metadata(&self) -> &Metadata {
        self.file.metadata()
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Name of the architecture.
    pub fn architecture(&self) -> &'static str {
        self.parameters.architecture.name
    }

    /// Length of hidden states.
    pub fn width(&self) -> usize {
        self.parameters.width
    }

    /// Number of logits.
    pub fn vocabulary(&self) -> usize {
        self.head().rows()
    }

    /// The context length the model was made for.
    pub fn context(&self) -> usize {
        self.parameters.context
    }

    /// Whether it predicts tokens; encoders give hidden states only.
    pub fn predicts(&self) -> bool {
        match &self.t5 {
            Some(t5) => t5.decodes(),
            None => {
                self.output.is_some() || self.parameters.layers.iter().all(|l| l.mask.is_causal())
            }
        }
    }

    /// Whether an input must be encoded ([`Session::encode`]) before tokens are predicted.
    pub fn encodes(&self) -> bool {
        self.t5.as_ref().is_some_and(T5::decodes)
    }

    /// The token that a decoder begins its output with.
    pub fn decoder_start(&self) -> u32 {
        let key = format!("{}.decoder_start_token_id", self.architecture());
        let token = self.metadata().u64(key);
        token.and_then(|t| u32::try_from(t).ok()).unwrap_or(0)
    }

    /// How the model's hidden states make one embedding, as its file says.
    pub fn pooling(&self) -> Pooling {
        self.parameters.pooling
    }

    /// The matrix that gives logits.
    pub(crate) fn head(&self) -> &Matrix {
        self.output
            .as_ref()
            .map_or(&self.embedding, |output| &output.weight)
    }

    /// Starts a session.
    ///
    /// # Errors
    /// If `GRIST_CPU` cannot be followed or the options make no sense.
    pub fn session(&self, options: &SessionOptions) -> Result<Session<'_>, Error> {
        self.session_on(Isa::detect()?, options)
    }

    /// [`Model::session`] on a given instruction set, which this CPU must have.
    ///
    /// # Errors
    /// If the options make no sense.
    ///
    /// # Panics
    /// If this CPU lacks the set.
    pub fn session_on(&self, isa: Isa, options: &SessionOptions) -> Result<Session<'_>, Error> {
        Session::new(self, isa, options)
    }
}

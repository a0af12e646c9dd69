//! Perplexity, KL divergence, benchmarks and reports.

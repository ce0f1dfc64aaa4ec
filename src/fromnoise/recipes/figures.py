"""What each recipe reached: measured once, on two cores without a GPU, with its own defaults."""

FIGURES = {
    "digits": (
        "label accuracy 1.000 guided, 0.982 not; trained on samples 0.985, on real data "
        "0.993; Fréchet distance 0.88; 1.84 bits/dim (`fromnoise evaluate runs/digits`)"
    ),
    "digits-ddpm500": (
        "label accuracy 1.000 guided, 0.987 not; trained on samples 0.977, on real data "
        "0.994; Fréchet distance 0.94; 1.79 bits/dim (`fromnoise evaluate runs/digits-"
        "ddpm500 --samples 600 --likelihood 64`)"
    ),
    "digits-edm": (
        "label accuracy 1.000 guided, 0.988 not; trained on samples 0.972, on real data "
        "0.994; Fréchet distance 1.21; 1.76 bits/dim (`fromnoise evaluate runs/digits-edm "
        "--samples 400 --likelihood 32`)"
    ),
    "digits-edm-augment": (
        "label accuracy 1.000 guided, 0.973 not; trained on samples 0.970, on real data "
        "0.994; Fréchet distance 1.27; 1.76 bits/dim (`fromnoise evaluate runs/digits-edm-augment "
        "--samples 400 --likelihood 32`)"
    ),
    "digits-flow": (
        "label accuracy 1.000 guided, 0.993 not; trained on samples 0.973, on real data "
        "0.994; Fréchet distance 1.03; 1.88 bits/dim (`fromnoise evaluate runs/digits-flow "
        "--samples 400 --likelihood 32`)"
    ),
    "digits-score-ve": (
        "label accuracy 1.000 guided, 0.958 not; trained on samples 0.969, on real data "
        "0.994; Fréchet distance 1.68; 1.78 bits/dim (`fromnoise evaluate runs/digits-"
        "score-ve --samples 400 --likelihood 32`)"
    ),
    "digits-score-vp": (
        "label accuracy 1.000 guided, 0.983 not; trained on samples 0.969, on real data "
        "0.993; Fréchet distance 1.19; 1.81 bits/dim (`fromnoise evaluate runs/digits-"
        "score-vp --samples 400 --likelihood 32`)"
    ),
    "digits-cold-blur": (
        "label accuracy 0.960 guided, 0.920 not; trained on samples 0.927, on real data "
        "0.994; Fréchet distance 4.34 (`fromnoise evaluate runs/digits-cold-blur --samples "
        "400`)"
    ),
    "digits-cold-learned": (
        "label accuracy 0.930 guided, 0.907 not; trained on samples 0.930, on real data "
        "0.994; Fréchet distance 5.08 (`fromnoise evaluate runs/digits-cold-learned "
        "--samples 400`)"
    ),
    "digits-cold-mask": (
        "label accuracy 0.998 guided, 1.000 not; trained on samples 0.910, on real data "
        "0.994; Fréchet distance 4.80 (`fromnoise evaluate runs/digits-cold-mask --samples "
        "400`)"
    ),
    "digits-blur-noise": (
        "label accuracy 1.000 guided, 0.978 not; trained on samples 0.953, on real data "
        "0.994; Fréchet distance 1.38; 1.85 bits/dim (`fromnoise evaluate runs/digits-blur-"
        "noise --samples 400 --likelihood 32`)"
    ),
    "digits-vdm": (
        "label accuracy 1.000 guided, 0.978 not; trained on samples 0.968, on real data "
        "0.994; Fréchet distance 1.31; 1.77 bits/dim; precision 0.87, recall 0.87 (`fromnoise "
        "evaluate runs/digits-vdm --samples 400`)"
    ),
    "digits-vae": (
        "label accuracy 0.993 guided, 1.000 not; trained on samples 0.937, on real data "
        "0.994; Fréchet distance 3.89; 1.90 bits/dim; precision 0.96, recall 0.46 (`fromnoise "
        "evaluate runs/digits-vae --samples 400`)"
    ),
    "digits-hvae": (
        "label accuracy 1.000 guided, 0.993 not; trained on samples 0.964, on real data "
        "0.994; Fréchet distance 2.11; 1.85 bits/dim; precision 0.89, recall 0.72 (`fromnoise "
        "evaluate runs/digits-hvae --samples 400`)"
    ),
    "digits-gan": (
        "label accuracy 0.950 guided, 0.993 not; trained on samples 0.968, on real data "
        "0.994; Fréchet distance 1.50; precision 0.91, recall 0.77 (`fromnoise evaluate "
        "runs/digits-gan --samples 400`)"
    ),
    "points-ddpm": (
        "precision 0.975, recall 0.903, nearest training point 0.0035 (`fromnoise evaluate "
        "runs/points-ddpm --samples 400 --likelihood 32`)"
    ),
    "points-flow": (
        "precision 0.853, recall 0.957, nearest training point 0.0131 (`fromnoise evaluate "
        "runs/points-flow --samples 400 --likelihood 32`)"
    ),
    "points-edm": (
        "precision 0.935, recall 0.979, nearest training point 0.0056 (`fromnoise evaluate "
        "runs/points-edm --samples 400 --likelihood 32`)"
    ),
    "font-digits": ("held-out loss 0.1504, on fonts never seen (`fromnoise train font-digits`)"),
    "finetune": (
        "held-out loss 0.267, from nothing 0.292 at its better rate; label accuracy 1.000 guided, "
        "both; Fréchet distance 3.22, from nothing 4.33, intervals overlap (`fromnoise evaluate "
        "runs/finetune --samples 300 --likelihood 0`)"
    ),
    "photos-ddpm": (
        "Fréchet distance 350, precision 0.51, recall 0.06: textures, few objects; 15 minutes of "
        "one core (`fromnoise evaluate runs/photos-ddpm --samples 250 --sampler ddim --steps 25 "
        "--likelihood 0`)"
    ),
    "glyphs-iddpm": (
        "2.19 bits/dim, Fréchet distance 17.4, on fonts never seen; 8 minutes of one core "
        "(`fromnoise evaluate runs/glyphs-iddpm --samples 400 --likelihood 16`)"
    ),
    "glyphs-iddpm-linear": (
        "2.33 bits/dim, Fréchet distance 23.2, on fonts never seen; 8 minutes of one core "
        "(`fromnoise evaluate runs/glyphs-iddpm-linear --samples 400 --likelihood 16`)"
    ),
    "glyphs-dit": (
        "held-out loss 0.126 on fonts never seen; guided letters can be read; 14 minutes of one "
        "core (`fromnoise train glyphs-dit`)"
    ),
    "emoji": (
        "held-out loss 0.158: shapes and colours of signs, none to be recognised; 14 minutes of "
        "one core (`fromnoise train emoji`)"
    ),
    "digits-classifier": (
        "held-out accuracy 0.986 without noise, 0.811 at t = 0.5, 0.323 at t = 0.8; 2.5 minutes of "
        "one core of a shared machine (`fromnoise evaluate runs/digits-classifier`)"
    ),
    "digits-classifier-guidance": (
        "steered by digits-classifier at 0, 1, 3, 10: label accuracy 0.11, 0.66, 0.96, 1.00, "
        "Fréchet distance 3.0, 6.5, 1.0, 4.3, recall 0.91, 0.93, 0.88, 0.62 "
        "(`python -m benchmarks guidance`)"
    ),
    "digits-mix": (
        "asked for half 3, half 8: surely one of the two in 0.65 of 250 digits (0.56 where as many "
        "are 3 as 8), 0.43 of those of `digits`; held-out loss 0.234 "
        "(`python -m benchmarks mixing`)"
    ),
    "emoji-text": (
        "right sign 0.73 and right colour 0.84 for pairs of words never shown (0.67 and 0.92 for "
        "prompts of the training data), guidance 2.5; 91 minutes of one core (`fromnoise evaluate "
        "runs/emoji-text --samples 600`)"
    ),
    "maps-to-pictures": (
        "mIoU 0.905 of the map read back, 0.944 of real pictures; 0.865 of things of the right "
        "kind in their place, 0.563 unguided; 6 minutes of one core (`fromnoise evaluate "
        "runs/maps-to-pictures --samples 400`); sampler and scale chosen on 96 other scenes"
    ),
    "shapes-clip": (
        "among 653 held-out pictures: its caption first 0.513, among five 0.985; a true caption "
        "first 0.727; colour named without training 1.000, kind 0.841; 4 minutes of one core "
        "(`fromnoise evaluate runs/shapes-clip`)"
    ),
    "shapes-text": (
        "held-out loss 0.0271; the first stage of shapes-text-places, which is what is measured: "
        "3,250 steps of a rate planned for 6,000, 55 minutes of one core"
    ),
    "shapes-text-places": (
        "0.65 of the attributes of captions it has seen are right, 0.56 of captions never seen "
        "(41), 0.78 of pairs left out; after 6,000 steps more 0.83, 0.85, 0.95; guidance 2; 50 "
        "and 102 minutes of one core (`fromnoise evaluate runs/shapes-text-more --samples 600`)"
    ),
    "shapes-clip-noisy": (
        "of clean pictures: its caption first 0.314, among five 0.841 of 653, at t = 0.5 0.302 and "
        "0.799; 11 minutes by the clock (`fromnoise evaluate runs/shapes-clip-noisy`)"
    ),
    "digits-from-features": (
        "label accuracy 1.000 of log-odds drawn by digits-features, 0.978 of those of held-out "
        "digits; Fréchet distance 3.3 and 0.6 (`python -m benchmarks.features`)"
    ),
    "photos-kl": (
        "25.5 dB PSNR (25.2 to 25.8), SSIM 0.697, of 1,000 held-out crops "
        "(`fromnoise evaluate runs/photos-kl`)"
    ),
    "photos-ldm": (
        "Fréchet distance 55 (42 to 70) after 15 minutes of one core (702 steps), 455 (432 to 477) "
        "of photos-pixels after as long (176 steps); 0.23 and 0.86 s a sample (`python -m "
        "benchmarks.latent --seconds 900 --samples 300`)"
    ),
    "shapes-kl": (
        "34.4 dB PSNR (34.2 to 34.6), SSIM 0.984, of 1,000 held-out scenes "
        "(`fromnoise evaluate runs/shapes-kl`)"
    ),
    "shapes-vq": (
        "32.2 dB PSNR (32.0 to 32.4), SSIM 0.978, of 1,000 held-out scenes; all codes in use, "
        "perplexity 201; 13 minutes of one core (`fromnoise evaluate runs/shapes-vq`)"
    ),
    "shapes-latent-dit": (
        "of attributes in captions seen 0.64 (0.61 to 0.66), in 41 never seen 0.59, in pairs left "
        "out 0.73; 37 minutes of one core (`python -m benchmarks.latent_dit --codec runs/shapes-kl "
        "-n 300`)"
    ),
    "shapes-latent-unet": (
        "of attributes in captions seen 0.32 (0.30 to 0.35), in 41 never seen 0.30, in pairs left "
        "out 0.60; 42 minutes of one core (the same command)"
    ),
    "shapes-vq-masked": (
        "2.89 nats a token; of attributes in captions seen 0.10 (0.08 to 0.12), in pairs left out "
        "0.17; 44 minutes of one core (`fromnoise evaluate runs/shapes-vq-masked --samples 600`)"
    ),
    "shapes-prior": (
        "of 329 captions of new scenes the nearest to the vector drawn is its own for 0.729, among "
        "five 0.997; of real pictures 0.660, 1.000 (`python -m benchmarks.prior -n 400`)"
    ),
    "shapes-decoder": (
        "whole caption true of 0.20 of pictures drawn from the prior's vectors, 0.25 from those of "
        "real pictures, 0.84 of shapes-text-places told the captions, which took 13 times as long "
        "(179 captions; `python -m benchmarks.prior --decoder runs/shapes-decoder --direct "
        "runs/shapes-text-more -n 200`)"
    ),
}
"""Recipe → its figures, from `evaluation.json`, and the command that measured them."""

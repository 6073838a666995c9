"""SaTQA: `pretrain`, its contrastive pre-training, `recipe`, which learns opinions, and what they are made of."""

"""SaTQA: `pretrain`, its contrastive pre-training, and what it is made of."""

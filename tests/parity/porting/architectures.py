"""Models in plain torch, written as people write them."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Out:
    logits: torch.Tensor
    hidden: torch.Tensor


torch.export.register_dataclass(Out)


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(64, 32)
        self.mu = nn.Linear(32, 4)
        self.logvar = nn.Linear(32, 4)
        self.fc3 = nn.Linear(4, 32)
        self.fc4 = nn.Linear(32, 64)

    def encode(self, x):
        h = F.relu(self.fc1(x))
        return self.mu(h), self.logvar(h)

    def reparameterize(self, mu, logvar):
        if not self.training:
            return mu
        std = torch.exp(0.5 * logvar)
        eps = torch.randn_like(std)
        return mu + eps * std

    def forward(self, x):
        mu, logvar = self.encode(x.view(-1, 64))
        z = self.reparameterize(mu, logvar)
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z)))), mu, logvar


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.lstm = nn.LSTM(16, 12, num_layers=2, bidirectional=True, batch_first=True)
        self.hidden2tag = nn.Linear(24, 5)

    def forward(self, sentence):
        e = self.embedding(sentence)
        out, (_h, _c) = self.lstm(e)
        return F.log_softmax(self.hidden2tag(out), dim=-1)


class Seq2Seq(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.GRU(8, 8, batch_first=True)
        self.src = nn.Embedding(20, 8)
        self.tgt = nn.Embedding(20, 8)
        self.cell = nn.GRUCell(16, 8)
        self.attn = nn.Linear(16, 1)
        self.out = nn.Linear(8, 20)

    def forward(self, src, tgt):
        enc, h = self.enc(self.src(src))
        h = h[0]
        outs = []
        for t in range(tgt.shape[1]):
            e = self.tgt(tgt[:, t])
            sc = self.attn(torch.cat([enc, h.unsqueeze(1).expand(-1, enc.size(1), -1)], -1)).squeeze(-1)
            w = F.softmax(sc, -1)
            ctx = torch.bmm(w.unsqueeze(1), enc).squeeze(1)
            h = self.cell(torch.cat([e, ctx], -1), h)
            outs.append(self.out(h))
        return torch.stack(outs, 1)


class GCN(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(8, 16)
        self.lin2 = nn.Linear(16, 3)

    def conv(self, x, e):
        src, dst = e[0], e[1]
        deg = torch.zeros(x.size(0)).scatter_add_(0, dst, torch.ones(dst.size(0)))
        norm = deg.clamp(min=1).pow(-0.5)
        m = x[src] * (norm[src] * norm[dst]).unsqueeze(-1)
        return torch.zeros_like(x).index_add_(0, dst, m)

    def forward(self, x, edge_index):
        x = F.relu(self.conv(self.lin(x), edge_index))
        x = F.dropout(x, 0.5, training=self.training)
        return F.log_softmax(self.conv(self.lin2(x), edge_index), dim=1)


class SpectralConv2d(nn.Module):
    def __init__(self, i, o, m):
        super().__init__()
        self.m = m
        self.o = o
        self.w1 = nn.Parameter(torch.randn(i, o, m, m, dtype=torch.cfloat) * 0.1)
        self.w2 = nn.Parameter(torch.randn(i, o, m, m, dtype=torch.cfloat) * 0.1)

    def forward(self, x):
        B = x.shape[0]
        ft = torch.fft.rfft2(x)
        out = torch.zeros(B, self.o, x.size(-2), x.size(-1) // 2 + 1, dtype=torch.cfloat)
        out[:, :, : self.m, : self.m] = torch.einsum("bixy,ioxy->boxy", ft[:, :, : self.m, : self.m], self.w1)
        out[:, :, -self.m :, : self.m] = torch.einsum("bixy,ioxy->boxy", ft[:, :, -self.m :, : self.m], self.w2)
        return torch.fft.irfft2(out, s=(x.size(-2), x.size(-1)))


class FNO(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc0 = nn.Linear(3, 6)
        self.convs = nn.ModuleList([SpectralConv2d(6, 6, 3) for _ in range(2)])
        self.ws = nn.ModuleList([nn.Conv2d(6, 6, 1) for _ in range(2)])
        self.fc1 = nn.Linear(6, 1)

    def grid(self, sh):
        gx = torch.linspace(0, 1, sh[1]).reshape(1, -1, 1, 1).repeat(sh[0], 1, sh[2], 1)
        gy = torch.linspace(0, 1, sh[2]).reshape(1, 1, -1, 1).repeat(sh[0], sh[1], 1, 1)
        return torch.cat((gx, gy), -1)

    def forward(self, x):
        x = self.fc0(torch.cat((x, self.grid(x.shape)), -1)).permute(0, 3, 1, 2)
        for c, w in zip(self.convs, self.ws, strict=False):
            x = F.gelu(c(x) + w(x))
        return self.fc1(x.permute(0, 2, 3, 1))


class BasicBlock(nn.Module):
    def __init__(self, i, o, st=1):
        super().__init__()
        self.conv1 = nn.Conv2d(i, o, 3, st, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(o)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(o, o, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(o)
        self.downsample = (
            nn.Sequential(nn.Conv2d(i, o, 1, st, bias=False), nn.BatchNorm2d(o)) if st != 1 or i != o else None
        )

    def forward(self, x):
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class ResNet18(nn.Module):
    def __init__(self, w=8):
        super().__init__()
        self.conv1 = nn.Conv2d(3, w, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(w)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = self.make(w, w, 1)
        self.layer2 = self.make(w, 2 * w, 2)
        self.layer3 = self.make(2 * w, 4 * w, 2)
        self.layer4 = self.make(4 * w, 8 * w, 2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(8 * w, 10)

    def make(self, i, o, st):
        return nn.Sequential(BasicBlock(i, o, st), BasicBlock(o, o))

    def forward(self, x):
        x = self.conv1(x)
        x = self.bn1(x)
        x = self.relu(x)
        x = self.maxpool(x)
        x = self.layer1(x)
        x = self.layer2(x)
        x = self.layer3(x)
        x = self.layer4(x)
        x = self.avgpool(x)
        x = torch.flatten(x, 1)
        return self.fc(x)


class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, dim * 3)
        self.proj = nn.Linear(dim, dim)
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        B, N, C = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        attn = (q @ k.transpose(-2, -1)) * self.scale
        attn = attn.softmax(dim=-1)
        attn = self.drop(attn)
        x = (attn @ v).transpose(1, 2).reshape(B, N, C)
        return self.proj(x)


class ViTBlock(nn.Module):
    def __init__(self, d, h):
        super().__init__()
        self.norm1 = nn.LayerNorm(d, eps=1e-6)
        self.attn = Attention(d, h)
        self.norm2 = nn.LayerNorm(d, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    def __init__(self, d=16, depth=3):
        super().__init__()
        self.patch = nn.Conv2d(3, d, 4, 4)
        self.cls_token = nn.Parameter(torch.randn(1, 1, d))
        self.pos_embed = nn.Parameter(torch.randn(1, 17, d))
        self.blocks = nn.ModuleList([ViTBlock(d, 2) for _ in range(depth)])
        self.norm = nn.LayerNorm(d)
        self.head = nn.Linear(d, 10)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.pos_embed
        for blk in self.blocks:
            x = blk(x)
        return self.head(self.norm(x)[:, 0])


class CausalSelfAttention(nn.Module):
    def __init__(self, n, h, T):
        super().__init__()
        self.n_head = h
        self.c_attn = nn.Linear(n, 3 * n)
        self.c_proj = nn.Linear(n, n)
        self.register_buffer("bias", torch.tril(torch.ones(T, T)).view(1, 1, T, T))
        self.dropout = 0.1
        self.n_embd = n

    def forward(self, x):
        B, T, C = x.size()
        q, k, v = self.c_attn(x).split(self.n_embd, dim=2)
        k = k.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        q = q.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        v = v.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        att = att.masked_fill(self.bias[:, :, :T, :T] == 0, float("-inf"))
        att = F.softmax(att, dim=-1)
        y = att @ v
        y = y.transpose(1, 2).contiguous().view(B, T, C)
        return F.dropout(self.c_proj(y), self.dropout, self.training)


class GPTBlock(nn.Module):
    def __init__(self, n, h, T):
        super().__init__()
        self.ln_1 = nn.LayerNorm(n)
        self.attn = CausalSelfAttention(n, h, T)
        self.ln_2 = nn.LayerNorm(n)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(n, 4 * n), "c_proj": nn.Linear(4 * n, n), "act": nn.GELU(approximate="tanh")}
        )

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        m = self.mlp
        return x + m.c_proj(m.act(m.c_fc(self.ln_2(x))))


class GPT(nn.Module):
    def __init__(self, V=40, n=16, h=2, T=12, L=3):
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(V, n),
                "wpe": nn.Embedding(T, n),
                "h": nn.ModuleList([GPTBlock(n, h, T) for _ in range(L)]),
                "ln_f": nn.LayerNorm(n),
            }
        )
        self.lm_head = nn.Linear(n, V, bias=False)
        self.transformer.wte.weight = self.lm_head.weight

    def forward(self, idx):
        _, t = idx.size()
        pos = torch.arange(0, t, dtype=torch.long, device=idx.device)
        x = self.transformer.wte(idx) + self.transformer.wpe(pos)
        for block in self.transformer.h:
            x = block(x)
        return self.lm_head(self.transformer.ln_f(x))


class Assorted(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared = nn.Linear(8, 8)
        self.register_buffer("count", torch.zeros(()))
        self.l = nn.ParameterList([nn.Parameter(torch.randn(8)) for _ in range(2)])

    def forward(self, batch, mask=None):
        x = batch["x"]
        self.count += 1
        x = self.shared(x)
        x = self.shared(F.relu(x))
        with torch.no_grad():
            m = x.mean(0)
        x = x - m + self.l[0] * self.l[1]
        if mask is not None:
            x[mask] = 0.0
        with torch.autocast("cpu", enabled=False):
            y = x @ x.T
        v, i = x.topk(2, dim=-1)
        return Out(v, y.sum(1, keepdim=True) * i)


class CondNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = nn.Linear(4, 4)

    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda x: self.a(x), lambda x: self.b(x) * 2, (x,))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(11, 8)
        self.lin = nn.Linear(8, 11, bias=False)
        self.lin.weight = self.emb.weight

    def forward(self, ids):
        return self.lin(self.emb(ids))


class Autocast(nn.Module):
    def __init__(self):
        super().__init__()
        self.l = nn.Linear(6, 6)

    def forward(self, x):
        with torch.no_grad():
            m = x.mean()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            h = self.l(x)
        return h.float() - m


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(6, 6), nn.ReLU()) for _ in range(4)])
        self.heads = nn.ModuleDict({"a": nn.Linear(6, 2), "b": nn.Linear(6, 3)})

    def forward(self, x, *, scale=1.0):
        for b in self.blocks:
            x = x + b(x) * scale
        return {k: h(x) for k, h in self.heads.items()}


class DroppedAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q = nn.Linear(8, 24)

    def forward(self, x):
        q, k, v = self.q(x).chunk(3, -1)
        return F.scaled_dot_product_attention(q, k, v, dropout_p=0.1 if self.training else 0.0)


class Branch(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.act = act
        self.l = nn.Linear(4, 4)

    def forward(self, x):
        return self.act(self.l(x))


class ScaledTanh(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return torch.tanh(x) * self.w


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        act = ScaledTanh()
        self.p = Branch(act)
        self.q = Branch(act)
        self.r = self.q

    def forward(self, x):
        return self.q(self.p(x)) + self.p(self.r(x)) + self.r.act(x)

import json
import struct

import torch

torch.manual_seed(20261125)


def save(path, tensors):  # safetensors by hand: 8 bytes of header length, JSON, data
    header, data = {}, b''
    for name, t in tensors.items():
        raw = struct.pack(f'<{t.numel()}{"d" if t.dtype == torch.float64 else "f"}', *t.flatten().tolist())
        dtype = 'F64' if t.dtype == torch.float64 else 'F32'
        header[name] = {'dtype': dtype, 'shape': list(t.shape), 'data_offsets': [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b' ' * (-len(text) % 8)
    open(path, 'wb').write(struct.pack('<Q', len(text)) + text + data)


STEPS = 30
CASES = {
    'adamw': lambda p: torch.optim.AdamW(p, lr=0.02, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    'adam': lambda p: torch.optim.Adam(p, lr=0.02, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.05),
    'sgd': lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, nesterov=True, weight_decay=0.05),
}
start = {'w': torch.randn(3, 5, dtype=torch.float64), 'b': torch.randn(4, dtype=torch.float64)}
# Gradients of very different sizes, as layers have them.
grads = {
    name: torch.randn(STEPS, *x.shape, dtype=torch.float64) * 10 ** torch.empty_like(x).uniform_(-5, 1)
    for name, x in start.items()
}
out = {f'start/{n}': x for n, x in start.items()} | {f'gradients/{n}': g for n, g in grads.items()}
for case, make in CASES.items():
    parameters = {n: x.clone().requires_grad_() for n, x in start.items()}
    optimizer = make(list(parameters.values()))
    seen = {n: [] for n in parameters}
    for step in range(STEPS):
        for n, p in parameters.items():
            p.grad = grads[n][step].clone()
        optimizer.step()
        for n, p in parameters.items():
            seen[n].append(p.detach().clone())
    out |= {f'{case}/{n}': torch.stack(s) for n, s in seen.items()}
save('trajectories.safetensors', out)
print(torch.__version__)

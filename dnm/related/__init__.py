"""What the related systems add, a door a file: who is mixed and how much (`pairs`, pure functions, read this first),
spans of word pieces (`spans`, SSMix), what is kept of each training sentence (`memory`, DMix and AUM + saliency).

Imported by the root, which it stands beside.
"""

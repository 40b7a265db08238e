# Gives processes on a CPU their memory in large pages; read with `source`. In small ones, the first touch of each page takes longer
# than what a small model computes in it: with large ones the trainer's imports take 10 s instead of 14, and a step of the tiny model's
# pretraining a fifth less. Python's own small blocks come from the same allocator then. Where glibc or kernel have none, nothing changes.
export GLIBC_TUNABLES=glibc.malloc.hugetlb=1 PYTHONMALLOC=malloc

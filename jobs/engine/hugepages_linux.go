package engine

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugePage is the size of a large page, in bytes, where it is the usual one.
const hugePage = 2 << 20

// preferHugePages asks for large pages under memory that will be walked at random, as
// a hash table and a sort do: with small ones, most accesses also miss the TLB. A
// kernel that has none to give changes nothing but the speed.
func preferHugePages(mem []byte) {
	start := uintptr(unsafe.Pointer(unsafe.SliceData(mem)))
	skip := -start & (hugePage - 1)
	if uintptr(len(mem)) < skip+hugePage {
		return
	}
	whole := (uintptr(len(mem)) - skip) &^ (hugePage - 1)
	_ = unix.Madvise(mem[skip:skip+whole], unix.MADV_HUGEPAGE)
}

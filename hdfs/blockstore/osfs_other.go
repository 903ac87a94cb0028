//go:build !linux

package blockstore

func (f osFile) Written(offset, length int64) {}

func (f osFile) Forget() {}

package mapreduce

import (
	"encoding/binary"
	"fmt"
)

// signBit makes negative numbers sort before positive ones, byte by byte.
const signBit = 1 << 63

// One is the number 1, as AppendInt encodes it. It must not be changed.
var One = []byte{0x80, 0, 0, 0, 0, 0, 0, 1}

// AppendInt appends a number as 8 bytes: fixed in width, so that a Fold can work in place, and in
// an order such that bytes.Compare orders them as numbers: they serve as keys, too.
func AppendInt(dst []byte, n int64) []byte {
	return binary.BigEndian.AppendUint64(dst, uint64(n)^signBit)
}

// Int decodes what AppendInt has encoded. It panics if b is of another length: then
// it was not a number, and the task fails saying so.
func Int(b []byte) int64 {
	if len(b) != 8 { // a Fold has no error to return, and to go on would be a wrong sum
		panic(notANumber(b))
	}
	return int64(binary.BigEndian.Uint64(b) ^ signBit)
}

// notANumber is out of line, so that Int can be inlined.
//
//go:noinline
func notANumber(b []byte) string {
	return fmt.Sprintf("mapreduce: a value of %d bytes (%.32q) is not a number made by AppendInt or EmitInt", len(b), b)
}

func putInt(b *[8]byte, n int64) { binary.BigEndian.PutUint64(b[:], uint64(n)^signBit) }

// Sum is a Fold that adds numbers (One, EmitInt, AppendInt). It wraps around silently at 2^63.
func Sum(acc, value []byte) []byte {
	n := Int(acc) + Int(value)
	binary.BigEndian.PutUint64(acc, uint64(n)^signBit)
	return acc
}

// Min is a Fold that keeps the smaller number.
func Min(acc, value []byte) []byte {
	if Int(value) < Int(acc) {
		copy(acc, value)
	}
	return acc
}

// Max is a Fold that keeps the greater number.
func Max(acc, value []byte) []byte {
	if Int(value) > Int(acc) {
		copy(acc, value)
	}
	return acc
}

// SumText is a Reduce that adds numbers and emits the sum as decimal text.
func SumText(ctx *Context, key []byte, values *Values) error {
	var sum int64
	for {
		v, ok := values.Next()
		if !ok {
			break
		}
		sum += Int(v)
	}
	if err := values.Err(); err != nil {
		return err
	}
	ctx.emitText(key, sum)
	return nil
}

// Keys is a Reduce that emits each key once, without a value.
func Keys(ctx *Context, key []byte, _ *Values) error {
	ctx.Emit(key, nil)
	return nil
}

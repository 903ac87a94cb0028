package logtail_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"millrace/pkg/logtail"
)

func TestTheLastLinesAreKept(t *testing.T) {
	tail := &logtail.Tail{Size: 100}
	var all, out bytes.Buffer
	require.NoError(t, tail.Copy(t.Context(), &out, false))
	require.Empty(t, out.String())
	for i := range 1000 {
		line := fmt.Sprintf("line %d\n", i)
		all.WriteString(line)
		fmt.Fprint(tail, line)
		out.Reset()
		require.NoError(t, tail.Copy(t.Context(), &out, false))
		require.True(t, strings.HasSuffix(all.String(), out.String()))
		require.True(t, strings.HasPrefix(out.String(), "line "), "%q begins in the middle", out.String())
		require.GreaterOrEqual(t, out.Len(), min(all.Len(), 100-len(line)))
		require.LessOrEqual(t, out.Len(), 200)
	}
	fmt.Fprint(tail, strings.Repeat("x", 1000)+"\nshort\n")
	out.Reset()
	require.NoError(t, tail.Copy(t.Context(), &out, false))
	require.Equal(t, "short\n", out.String())
}

func TestFollowing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tail := &logtail.Tail{}
		fmt.Fprintln(tail, "before")
		ctx, cancel := context.WithCancel(t.Context())
		var out bytes.Buffer
		over := make(chan error, 1)
		go func() { over <- tail.Copy(ctx, &out, true) }()
		synctest.Wait()
		require.Equal(t, "before\n", out.String())
		fmt.Fprintln(tail, "after")
		synctest.Wait()
		require.Equal(t, "before\nafter\n", out.String())
		cancel()
		require.ErrorIs(t, <-over, context.Canceled)
	})
}

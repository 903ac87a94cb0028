package worker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protodelim"

	"millrace/pkg/api"
	"millrace/pkg/filesocket"
	"millrace/pkg/objectstore"
	"millrace/pkg/record"
)

// TestMain makes the test binary the child of the workers under test.
func TestMain(m *testing.M) {
	if os.Getenv("MILLRACE_ATTEMPT_FD") != "" {
		fakeChild()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// fakeChild writes made-up segments and reads them: enough to see every byte through.
func fakeChild() {
	conn, err := net.FileConn(os.NewFile(3, "socket"))
	if err != nil {
		os.Exit(8)
	}
	in := bufio.NewReader(conn)
	send := func(m *api.FromChild) {
		if _, err := protodelim.MarshalTo(conn, m); err != nil {
			os.Exit(9)
		}
	}
	next := func() *api.ToChild {
		m := &api.ToChild{}
		if err := protodelim.UnmarshalFrom(in, m); err != nil {
			os.Exit(0)
		}
		return m
	}
	send(&api.FromChild{Message: &api.FromChild_Hello{Hello: &api.ChildHello{ProtocolMin: 1, ProtocolMax: 2}}})
	for {
		l := next().GetLease()
		if l == nil {
			continue
		}
		send(&api.FromChild{Message: &api.FromChild_Progress{Progress: &api.ChildProgress{Attempt: l.Attempt, BytesDone: 7}}})
		var res *api.AttemptResult
		for _, arg := range l.Program.GetArgs() {
			switch {
			case arg == "exit":
				os.Exit(5)
			case arg == "hang":
				time.Sleep(time.Hour)
			case strings.HasPrefix(arg, "wait="): // until the file is there
				for {
					if _, err := os.Stat(arg[5:]); err == nil {
						break
					}
					time.Sleep(time.Millisecond)
				}
			case strings.HasPrefix(arg, "say="):
				fmt.Fprint(os.Stderr, arg[4:])
			case strings.HasPrefix(arg, "cat="):
				data, err := os.ReadFile(filepath.Join(l.WorkDir, arg[4:]))
				fmt.Fprintf(os.Stderr, "%s %v\n", data, err)
			}
		}
		if slices.Contains(l.Program.GetArgs(), "term") { // as the SDK says of a SIGTERM
			res = &api.AttemptResult{Failure: &api.Failure{Kind: api.FailureKind_FAILURE_KIND_KILLED, Message: "killed"}}
		} else if l.Kind == api.TaskKind_TASK_KIND_MAP {
			res = fakeMap(l)
		} else {
			res = fakeReduce(l, next)
		}
		send(&api.FromChild{Message: &api.FromChild_Result{Result: &api.ChildResult{Attempt: l.Attempt, Result: res, Reusable: res.Failure == nil}}})
	}
}

func fakeMap(l *api.ChildLease) *api.AttemptResult {
	if l.Output != nil {
		return fakeCopy(l)
	}
	if l.Partitions == 0 {
		return &api.AttemptResult{OutputRecords: 1}
	}
	f, err := os.Create(l.SegmentPath)
	if err != nil {
		os.Exit(7)
	}
	w := record.NewWriter(f, int(l.Partitions), record.S2)
	for p := range int(l.Partitions) {
		for i := range 100 {
			_ = w.Append(p, fmt.Appendf(nil, "key-%03d", i), fmt.Appendf(nil, "map %d", l.Index))
		}
	}
	x, err := w.Close()
	if err != nil || f.Close() != nil {
		os.Exit(7)
	}
	t := x.Total()
	return &api.AttemptResult{Digest: x.Digest(), Segment: &api.Ledger{Records: t.Records, Bytes: t.Bytes, Checksum: t.Checksum}}
}

// fakeCopy copies a file of the block store by way of the worker, and tries to write to another upload than its own.
func fakeCopy(l *api.ChildLease) *api.AttemptResult {
	ctx, files, in, out := context.Background(), filesocket.NewClient(l.FilesSocket), l.Split.Pieces[0], l.Output
	failed := func(err error) *api.AttemptResult {
		return &api.AttemptResult{Failure: &api.Failure{Kind: api.FailureKind_FAILURE_KIND_PROGRAM, Message: err.Error()}}
	}
	body, err := files.Get(ctx, in.Bucket, in.Key, in.Offset, in.Length, in.Etag)
	if err != nil {
		return failed(err)
	}
	data, err := io.ReadAll(body)
	if err == nil {
		_, err = files.UploadPart(ctx, out.Bucket, out.Key, out.UploadId, 1, data)
	}
	if err == nil {
		err = files.SealUpload(ctx, out.Bucket, out.Key, out.UploadId)
	}
	if err != nil {
		return failed(err)
	}
	if err := files.SealUpload(ctx, out.Bucket, "another", out.UploadId); !errors.Is(err, objectstore.ErrDenied) {
		return failed(fmt.Errorf("another upload: %v", err))
	}
	return &api.AttemptResult{OutputParts: 1, OutputBytes: int64(len(data))}
}

func fakeReduce(l *api.ChildLease, next func() *api.ToChild) *api.AttemptResult {
	res := &api.AttemptResult{}
	for got := 0; got < int(l.Maps); {
		m := next()
		if m.GetCancel() != nil {
			return &api.AttemptResult{Failure: &api.Failure{Kind: api.FailureKind_FAILURE_KIND_KILLED, Message: "as told"}}
		}
		for _, g := range m.GetSegments().GetSegments() {
			got++
			f, err := os.Open(g.Path)
			if err != nil {
				os.Exit(7)
			}
			r := record.NewReader(io.NewSectionReader(f, g.Offset, g.Length), int(l.Index))
			for {
				if _, _, err := r.Next(); err == io.EOF {
					break
				} else if err != nil {
					os.Exit(6)
				}
				res.OutputRecords++
			}
			f.Close()
			res.Digest += record.MapDigest(int(g.Map), g.Digest)
		}
	}
	return res
}

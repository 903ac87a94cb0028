package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/master/state"
	"millrace/pkg/api"
)

// fakeStream is one worker's connection, in memory.
type fakeStream struct {
	in    chan *api.WorkerMessage
	ended chan struct{}
	why   error // what Receive gives at the end
	once  sync.Once

	mu   sync.Mutex
	sent []*api.MasterMessage
}

func newStream() *fakeStream {
	return &fakeStream{in: make(chan *api.WorkerMessage, 16), ended: make(chan struct{})}
}

func (s *fakeStream) Receive() (*api.WorkerMessage, error) {
	select {
	case m := <-s.in:
		return m, nil
	default:
	}
	select {
	case m := <-s.in:
		return m, nil
	case <-s.ended:
		return nil, s.why
	}
}

func (s *fakeStream) Send(m *api.MasterMessage) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent = append(s.sent, m)
	return nil
}

func (s *fakeStream) end(why error) {
	s.once.Do(func() {
		s.why = why
		close(s.ended)
	})
}

func (s *fakeStream) got() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for _, m := range s.sent {
		list = append(list, fmt.Sprintf("%T", m.Message)[len("*api.MasterMessage_"):])
	}
	return list
}

func (s *fakeStream) hello(node, incarnation string, term uint64) {
	s.in <- &api.WorkerMessage{Message: &api.WorkerMessage_Hello{Hello: &api.WorkerHello{
		NodeId: node, Incarnation: incarnation, HighestTerm: term, Slots: 2, Address: "https://x", DiskFreeBytes: 5,
	}}}
}

func (s *fakeStream) beat() {
	s.in <- &api.WorkerMessage{Message: &api.WorkerMessage_Heartbeat{Heartbeat: &api.WorkerHeartbeat{DiskFreeBytes: 7}}}
}

// diary is a Handler that writes down what it hears.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) add(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, fmt.Sprintf(format, args...))
}
func (d *diary) Up(node string, h *api.WorkerHello) { d.add("up %s %s", node, h.Incarnation) }
func (d *diary) Down(node, reason string)           { d.add("down %s: %s", node, reason) }
func (d *diary) Message(node string, m *api.WorkerMessage) {
	d.add("%T", m.Message)
}
func (d *diary) read() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lines
}

type site struct {
	*Registry
	t     *testing.T
	diary *diary
	log   *state.Store
	index uint64
	lost  error // what logging fails with
}

func (s *site) apply(c state.Command) {
	s.index++
	_, err := s.log.Apply(s.index, c)
	require.NoError(s.t, err)
}

func (s *site) find(_ context.Context, c state.FindNode) error {
	if s.lost != nil {
		return s.lost
	}
	s.apply(c)
	return nil
}

func in(t *testing.T, f func(t *testing.T, s *site)) {
	synctest.Test(t, func(t *testing.T) {
		s := &site{t: t, diary: &diary{}, log: state.New()}
		s.apply(state.CreateSite{Site: state.Site{ID: "x"}, Cluster: state.Cluster{ID: "j-1", Name: "default",
			Groups: []state.Group{{ID: "ig-c", Role: state.RoleCore}}}})
		s.apply(state.PutNode{Node: state.Node{ID: "i-a", Cluster: "j-1", Group: "ig-c", Role: state.RoleCore, State: state.NodeAdmitted}})
		s.apply(state.PutNode{Node: state.Node{ID: "i-m", Role: state.RoleMaster, State: state.NodeAdmitted}})
		s.Registry = New(Config{Term: 5, View: s.log.View, Find: s.find, Welcome: func(n *state.Node) *api.SessionWelcome {
			return &api.SessionWelcome{Term: 5, Cluster: n.Cluster}
		}})
		s.Handle(s.diary)
		f(t, s)
		s.Close()
		s.Close()
	})
}

// serve runs a session as a handler would: when Serve is over, so is the stream.
func (s *site) serve(node string, st *fakeStream) <-chan error {
	over := make(chan error, 1)
	go func() {
		err := s.Serve(context.Background(), node, st)
		st.end(errors.New("the call is over"))
		over <- err
	}()
	return over
}

func TestSession(t *testing.T) {
	in(t, func(t *testing.T, s *site) {
		require.False(t, s.Send("i-a", &api.MasterMessage{}), "not connected")
		st := newStream()
		over := s.serve("i-a", st)
		st.hello("i-a", "1", 5)
		synctest.Wait()
		require.Equal(t, []string{"up i-a 1"}, s.diary.read())
		require.True(t, s.Send("i-a", &api.MasterMessage{Message: &api.MasterMessage_Kill{Kill: &api.Kill{}}}))
		st.beat()
		synctest.Wait()
		require.Equal(t, []string{"Welcome", "Kill", "Pong"}, st.got())
		n := s.Nodes()
		require.Len(t, n, 1)
		require.Equal(t, Node{ID: "i-a", Address: "https://x", Cluster: "j-1", Role: state.RoleCore, Slots: 2, DiskFree: 7,
			Incarnation: "1", Protocol: 1, LastSeen: n[0].LastSeen, Connected: true}, n[0])

		st.end(io.EOF) // goodbye
		require.ErrorIs(t, <-over, io.EOF)
		require.Equal(t, "down i-a: the worker ended", s.diary.read()[2])
		require.Empty(t, s.Nodes())
		require.Equal(t, n[0].LastSeen, s.LastSeen("i-a"), "still known of one that is gone")
		require.Zero(t, s.LastSeen("i-b"))
	})
}

func TestLease(t *testing.T) {
	in(t, func(t *testing.T, s *site) {
		st := newStream()
		over := s.serve("i-a", st)
		st.hello("i-a", "1", 0)
		for range 10 {
			time.Sleep(2500 * time.Millisecond)
			st.beat()
		}
		synctest.Wait()
		st.end(errors.New("broken"))
		<-over
		require.NotContains(t, s.diary.read(), "down")
		require.Len(t, s.Nodes(), 1)
		require.False(t, s.Nodes()[0].Connected)
		require.False(t, s.Connected(s.Nodes()[0].ID))
		require.False(t, s.Send("i-a", &api.MasterMessage{}))

		time.Sleep(2900 * time.Millisecond) // back in time
		st = newStream()
		over = s.serve("i-a", st)
		st.hello("i-a", "1", 0)
		synctest.Wait()
		lines := s.diary.read()
		require.Equal(t, "up i-a 1", lines[len(lines)-1])

		start := time.Now() // silent, though its stream is open
		require.ErrorIs(t, <-over, ErrLeaseOver)
		require.Equal(t, 3*time.Second+lastMoment, time.Since(start))
		lines = s.diary.read()
		require.Equal(t, "down i-a: nothing heard within the lease", lines[len(lines)-1])
	})
}

// A leader that did not run for a while blames nobody for its own silence: it first
// reads what has come meanwhile.
func TestLeaseAfterAPauseOfTheLeader(t *testing.T) {
	for name, c := range map[string]struct {
		late time.Duration
		beat bool
		left time.Duration // of the last chance
	}{
		"on time, silent":        {0, false, lastMoment},
		"on time, then heard of": {0, true, 0},
		"late, silent":           {6 * time.Second, false, DefaultLease},
		"late, then heard of":    {6 * time.Second, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, s *site) {
				st := newStream()
				over := s.serve("i-a", st)
				st.hello("i-a", "1", 0)
				synctest.Wait()
				s.mu.Lock()
				e := s.nodes["i-a"]
				require.True(t, e.timer.Stop())
				e.timer = nil
				s.mu.Unlock()
				time.Sleep(DefaultLease + c.late)
				start := time.Now()
				s.expire(e) // what the timer would have done
				s.wg.Done()
				if c.beat {
					st.beat()
					synctest.Wait()
					time.Sleep(DefaultLease - time.Millisecond)
					require.Len(t, s.Nodes(), 1)
					require.Len(t, s.diary.read(), 2, "up and the heartbeat, no down")
					return
				}
				require.ErrorIs(t, <-over, ErrLeaseOver)
				require.Equal(t, c.left, time.Since(start))
			})
		})
	}
}

func TestNewerSessionReplacesOlder(t *testing.T) {
	in(t, func(t *testing.T, s *site) {
		a, b := newStream(), newStream()
		overA := s.serve("i-a", a)
		a.hello("i-a", "1", 0)
		synctest.Wait()
		overB := s.serve("i-a", b)
		b.hello("i-a", "2", 0)
		require.ErrorIs(t, <-overA, ErrReplaced)
		a.beat()
		synctest.Wait()
		require.Equal(t, []string{"up i-a 1", "up i-a 2"}, s.diary.read(), "no Down between, nothing of the old one after")
		require.Equal(t, "2", s.Nodes()[0].Incarnation)
		s.Close()
		require.ErrorIs(t, <-overB, ErrClosed)
		require.ErrorIs(t, s.Serve(context.Background(), "i-a", newStream()), ErrClosed)
	})
}

// A second process with a node's identity is refused while the first is heard of, which goes on undisturbed.
func TestASecondProcessOfANodeIsRefused(t *testing.T) {
	in(t, func(t *testing.T, s *site) {
		a, b := newStream(), newStream()
		s.serve("i-a", a)
		a.hello("i-a", "1", 0)
		synctest.Wait()
		overB := s.serve("i-a", b)
		b.hello("i-a", "2", 0)
		synctest.Wait()
		require.Equal(t, []string{"up i-a 1"}, s.diary.read(), "it waits")
		a.beat()
		err := <-overB
		require.ErrorIs(t, err, ErrDuplicate)
		require.Contains(t, err.Error(), "was its folder copied?")
		require.Equal(t, "1", s.Nodes()[0].Incarnation)
		require.True(t, s.Nodes()[0].Connected)

		a.end(io.ErrUnexpectedEOF)
		synctest.Wait()
		copied := newStream()
		overCopied := s.serve("i-a", copied)
		copied.hello("i-a", "2", 0)
		require.ErrorIs(t, <-overCopied, ErrDuplicate, "nor does it become the node when that one's stream breaks for a moment")

		again := newStream()
		s.serve("i-a", again)
		again.hello("i-a", "1", 0)
		synctest.Wait()
		require.Equal(t, []string{"up i-a 1", "*api.WorkerMessage_Heartbeat", "up i-a 1"}, s.diary.read(), "the same process is never a second one")

		next := newStream()
		s.serve("i-a", next)
		next.hello("i-a", "3", 0)
		synctest.Wait()
		again.end(io.ErrUnexpectedEOF)
		synctest.Wait()
		require.Equal(t, "3", s.Nodes()[0].Incarnation, "its successor need not wait when the stream breaks")
	})
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		node string
		play func(st *fakeStream)
		want error
	}{
		"unknown node":           {"i-z", func(st *fakeStream) { st.hello("i-z", "1", 0) }, ErrUnknownNode},
		"a master":               {"i-m", func(st *fakeStream) { st.hello("i-m", "1", 0) }, ErrUnknownNode},
		"another's name":         {"i-a", func(st *fakeStream) { st.hello("i-z", "1", 0) }, ErrProtocol},
		"no process is named so": {"i-a", func(st *fakeStream) { st.hello("i-a", strings.Repeat("1", 129), 0) }, ErrProtocol},
		"newer term":             {"i-a", func(st *fakeStream) { st.hello("i-a", "1", 6) }, ErrStaleTerm},
		"no hello first":         {"i-a", func(st *fakeStream) { st.beat() }, ErrProtocol},
		"says nothing":           {"i-a", func(st *fakeStream) {}, ErrLeaseOver},
		"ends before that":       {"i-a", func(st *fakeStream) { st.end(io.EOF) }, io.EOF},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, s *site) {
				st := newStream()
				over := s.serve(c.node, st)
				c.play(st)
				require.ErrorIs(t, <-over, c.want)
				require.Empty(t, s.diary.read())
				require.Empty(t, s.Nodes())
			})
		})
	}
}

// A node that was taken over has nobody go anywhere but to a port where it has to show its own certificate.
func TestAWorkerThatWouldSendOthersElsewhere(t *testing.T) {
	for address, fine := range map[string]bool{
		"https://10.0.0.1:7410": true, "https://[fd00::1]:7410": true, "https://core1:7410": true,
		"": false, "10.0.0.1:7410": false, "http://10.0.0.1:7410": false, "http://169.254.169.254/latest/meta-data/?": false, "https://": false,
		"https://10.0.0.1:7410/": false, "https://10.0.0.1:7410/x?": false, "https://10.0.0.1:7410?": false, "https://10.0.0.1#": false, "https://u:p@10.0.0.1": false,
	} {
		t.Run(address, func(t *testing.T) {
			in(t, func(t *testing.T, s *site) {
				st := newStream()
				over := s.serve("i-a", st)
				st.in <- &api.WorkerMessage{Message: &api.WorkerMessage_Hello{Hello: &api.WorkerHello{NodeId: "i-a", Incarnation: "1", Address: address}}}
				synctest.Wait()
				if fine {
					require.Len(t, s.Nodes(), 1)
					return
				}
				require.ErrorIs(t, <-over, ErrProtocol)
				require.Empty(t, s.Nodes())
			})
		})
	}
}

func TestTerminatedNodeIsCutOff(t *testing.T) {
	in(t, func(t *testing.T, s *site) {
		st := newStream()
		over := s.serve("i-a", st)
		st.hello("i-a", "1", 0)
		synctest.Wait()
		s.apply(state.RemoveNode{ID: "i-a"})
		st.beat()
		require.ErrorIs(t, <-over, ErrTerminated)
		require.Equal(t, "down i-a: node has been terminated", s.diary.read()[1])
	})
}

func TestSecondHello(t *testing.T) {
	in(t, func(t *testing.T, s *site) {
		st := newStream()
		over := s.serve("i-a", st)
		st.hello("i-a", "1", 0)
		st.hello("i-a", "1", 0)
		require.ErrorIs(t, <-over, ErrProtocol)
	})
}

// A worker that does not read is cut off; Send never blocks.
func TestOverflow(t *testing.T) {
	c := newConn()
	for range queueLimit {
		require.True(t, c.push(&api.MasterMessage{}))
	}
	require.False(t, c.push(&api.MasterMessage{}))
	require.ErrorIs(t, c.err(), ErrOverflow)
}

func TestCallersEnd(t *testing.T) {
	in(t, func(t *testing.T, s *site) {
		ctx, cancel := context.WithCancel(context.Background())
		st := newStream()
		over := make(chan error, 1)
		go func() {
			err := s.Serve(ctx, "i-a", st)
			st.end(err)
			over <- err
		}()
		st.hello("i-a", "1", 0)
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-over, context.Canceled)
		time.Sleep(4 * time.Second)
		synctest.Wait()
		require.Equal(t, "down i-a: nothing heard within the lease", s.diary.read()[1])
	})
}

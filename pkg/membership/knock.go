package membership

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// A knock is a datagram that every member sends back as it is. A master makes it for a machine that is about to join, so that this
// learns whether UDP passes in both directions before it is a member. It is sealed with the gossip's key and names the address
// that it may come from and until when: to anybody else's datagrams a member says nothing.
const knockMagic = "mrk1"

// KnockLife is how long a knock is answered.
const KnockLife = time.Minute

// NewKnock makes a knock for a machine.
func NewKnock(key []byte, from netip.Addr, now time.Time) ([]byte, error) {
	seal, err := knockSeal(key)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, seal.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return nil, fmt.Errorf("membership: knock: %w", err)
	}
	address := from.As16()
	plain := binary.BigEndian.AppendUint64(address[:], uint64(now.Add(KnockLife).Unix()))
	return seal.Seal(append([]byte(knockMagic), nonce...), nonce, plain, []byte(knockMagic)), nil
}

// What a knock is at least, and what may follow it, by which the caller tells one of its own from another.
const (
	knockBytes = len(knockMagic) + 12 + 24 + 16 // nonce, address and time, tag
	mostAfter  = 16
)

// knocks says whether a datagram is a knock that is to be answered.
func knocks(key, packet []byte, from netip.Addr, now time.Time) bool {
	if len(packet) < knockBytes || len(packet) > knockBytes+mostAfter || string(packet[:len(knockMagic)]) != knockMagic {
		return false
	}
	seal, err := knockSeal(key)
	if err != nil {
		return false
	}
	sealed := packet[len(knockMagic):knockBytes]
	plain, err := seal.Open(nil, sealed[:seal.NonceSize()], sealed[seal.NonceSize():], []byte(knockMagic))
	if err != nil || len(plain) != 24 {
		return false
	}
	return from.As16() == [16]byte(plain[:16]) && now.Unix() <= int64(binary.BigEndian.Uint64(plain[16:]))
}

func knockSeal(key []byte) (cipher.AEAD, error) {
	own := sha256.Sum256(append([]byte("millrace knock "), key...)) // nothing else is sealed with it
	block, err := aes.NewCipher(own[:])
	if err != nil {
		return nil, fmt.Errorf("membership: knock: %w", err)
	}
	return cipher.NewGCM(block)
}

// answering is memberlist's own transport, with knocks answered and taken out of its packets.
type answering struct {
	*memberlist.NetTransport
	packets chan *memberlist.Packet
	closing chan struct{} // nobody takes packets any more
	closed  chan struct{} // none come
	once    sync.Once
	sorting sync.WaitGroup
}

// anyPort is how often a port is looked for that is free for TCP and for UDP.
const anyPort = 10

func newAnswering(conf *memberlist.Config, key []byte) (*answering, error) {
	var own *memberlist.NetTransport
	var err error
	for range anyPort {
		own, err = memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{conf.BindAddr}, BindPort: conf.BindPort, Logger: conf.Logger})
		if err == nil || conf.BindPort != 0 {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	if conf.BindPort == 0 {
		conf.BindPort = own.GetAutoBindPort()
		conf.AdvertisePort = conf.BindPort
	}
	t := &answering{NetTransport: own, packets: make(chan *memberlist.Packet), closing: make(chan struct{}), closed: make(chan struct{})}
	t.sorting.Go(func() { t.sort(key) })
	return t, nil
}

// sort takes packets from the transport until that is closed: it waits for the last one to be taken.
func (t *answering) sort(key []byte) {
	for {
		select {
		case <-t.closed:
			return
		case p := <-t.NetTransport.PacketCh():
			if udp, ok := p.From.(*net.UDPAddr); ok && knocks(key, p.Buf, udp.AddrPort().Addr(), p.Timestamp) {
				_, _ = t.NetTransport.WriteTo(p.Buf, p.From.String()) // who hears nothing knocks again
				continue
			}
			select {
			case t.packets <- p:
			case <-t.closing:
			}
		}
	}
}

// PacketCh is where memberlist gets its packets from.
func (t *answering) PacketCh() <-chan *memberlist.Packet { return t.packets }

// Shutdown ends the sorting, too.
func (t *answering) Shutdown() (err error) {
	t.once.Do(func() {
		close(t.closing)
		err = t.NetTransport.Shutdown()
		close(t.closed)
		t.sorting.Wait()
	})
	return err
}

// ErrNoEcho says that a member did not send a knock back.
var ErrNoEcho = errors.New("no answer")

// Knock sends a knock to a member from a socket of the caller's own, several times, as datagrams get lost, until it comes back or the time is over.
func Knock(conn net.Conn, knock []byte, within time.Duration) error {
	const tries = 4
	buf := make([]byte, len(knock)+1)
	var last error
	for range tries {
		if _, err := conn.Write(knock); err != nil {
			last = err
		}
		if err := conn.SetReadDeadline(time.Now().Add(within / tries)); err != nil {
			return err
		}
		for {
			n, err := conn.Read(buf)
			if err == nil && string(buf[:n]) == string(knock) {
				return nil
			}
			if err == nil {
				continue
			}
			if timeout := net.Error(nil); !errors.As(err, &timeout) || !timeout.Timeout() {
				last = err
			}
			break
		}
	}
	if last != nil {
		return last
	}
	return fmt.Errorf("%w within %s", ErrNoEcho, within)
}

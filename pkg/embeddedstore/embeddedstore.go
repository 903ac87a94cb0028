// Package embeddedstore is the object store that comes with Millrace: an S3
// gateway over one directory, for trying things out and for tests. It owns the
// directory's layout and the gateway's settings.
//
// The gateway is a process of its own: it changes the working directory, and a
// process can run one only. It speaks plain HTTP with signed requests, and so
// listens on loopback alone. It cannot hold "a" and "a/b" both as objects.
package embeddedstore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
	"golang.org/x/sys/unix"
)

// HealthPath answers 200 to an unsigned GET once the store takes requests. No
// bucket can have its name.
const HealthPath = "/_health"

// Config says where the store keeps its objects and who may use it.
type Config struct {
	Dir       string // made if missing; objects lie under objects/, their metadata beside it where the file system has no extended attributes
	Listen    string // host:port on loopback
	AccessKey string
	SecretKey string
	Region    string // default us-east-1
}

func (c Config) check() error {
	var all []error
	if c.Dir == "" {
		all = append(all, errors.New("no directory given"))
	}
	if len(c.AccessKey) < 3 || len(c.SecretKey) < 8 {
		all = append(all, errors.New("the access key needs 3 characters or more and the secret key 8"))
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return errors.Join(append(all, fmt.Errorf("listen address %q: want HOST:PORT", c.Listen))...)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		all = append(all, fmt.Errorf("listen address %q: the port must be from 1 to 65535", c.Listen))
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		all = append(all, fmt.Errorf("listen address %q: the embedded store speaks plain HTTP and listens on loopback only, such as 127.0.0.1", c.Listen))
	}
	return errors.Join(all...)
}

const (
	// maxRequests at once is far above what a machine's workers have open.
	maxRequests = 4096
	// actions in the file system at once; each may hold a thread.
	maxActions = 512
)

// Run serves the store until ctx ends, then finishes the requests it has and
// returns nil. It changes the process's working directory, and there can be
// one at a time in a process.
func Run(ctx context.Context, c Config) error {
	if err := c.check(); err != nil {
		return fmt.Errorf("embedded object store: %w", err)
	}
	root, metadata, options, err := prepare(c.Dir)
	if err != nil {
		return fmt.Errorf("embedded object store in %s: %w", c.Dir, err)
	}
	backend, err := posix.New(root, metadata, options)
	if err != nil {
		return fmt.Errorf("embedded object store in %s: %w", c.Dir, err)
	}
	err = embedgw.RunVersityGW(ctx, backend, &embedgw.Config{
		RootUserAccess: c.AccessKey, RootUserSecret: c.SecretKey, Region: c.Region,
		IAMService:     auth.NewIAMServiceSingle(auth.Account{Access: c.AccessKey, Secret: c.SecretKey, Role: auth.RoleAdmin}),
		Ports:          []string{c.Listen},
		MaxConnections: maxRequests, MaxRequests: maxRequests, MultipartMaxParts: 10_000,
		Quiet:       true,
		KeepAlive:   true,
		DisableACLs: true, // one account, which may do everything
		HealthPath:  HealthPath,
	})
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("embedded object store on %s: %w", c.Listen, err)
	}
	return nil
}

// prepare makes the directory and decides where metadata goes. A store that
// was begun with metadata beside its objects stays so.
func prepare(dir string) (root string, m meta.MetadataStorer, o posix.PosixOpts, err error) {
	// The gateway compares paths as strings, and changes directory.
	if dir, err = filepath.Abs(dir); err != nil {
		return "", nil, o, err
	}
	root, beside := filepath.Join(dir, "objects"), filepath.Join(dir, "metadata")
	if err := os.MkdirAll(root, 0o700); err != nil {
		return "", nil, o, err
	}
	o.Concurrency = maxActions
	o.SetNewDirPerm(0o700)
	o.SetNewFilePerm(0o600)
	_, statErr := os.Stat(beside)
	if statErr != nil && hasAttributes(root) {
		return root, meta.XattrMeta{}, o, nil
	}
	if err := os.MkdirAll(beside, 0o700); err != nil {
		return "", nil, o, err
	}
	s, err := meta.NewSideCar(beside)
	if err != nil {
		return "", nil, o, err
	}
	o.SideCarDir = beside
	return root, s, o, nil
}

// hasAttributes tries whether files here can have extended attributes.
func hasAttributes(dir string) bool {
	const name = "user.millrace.probe"
	if err := unix.Setxattr(dir, name, []byte("1"), 0); err != nil {
		return false
	}
	return unix.Removexattr(dir, name) == nil
}

// Ready waits until the store at endpoint (http://host:port) takes requests,
// or ctx ends.
func Ready(ctx context.Context, endpoint string) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := probe(ctx, client, endpoint+HealthPath)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("object store %s is not ready: %w: %w", endpoint, ctx.Err(), err)
		case <-tick.C:
		}
	}
}

func probe(ctx context.Context, client *http.Client, url string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	if err := resp.Body.Close(); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s", resp.Status)
	}
	return nil
}

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"millrace/cmd/cli/devcluster"
	"millrace/master"
	"millrace/pkg/bytesize"
	"millrace/pkg/embeddedstore"
	"millrace/pkg/nodedir"
	"millrace/worker"
)

func (a *app) masterCommand() *cli.Command {
	return group("master", "run a master; the set of masters", "millrace master list", nil,
		a.leaf(spec{name: "list", aliases: []string{"ls"}, usage: "the site's masters: who leads, who votes, who is up", example: "millrace master list", do: masterList}),
		a.leaf(spec{name: "add", usage: "let a master back into the set that was taken out of it", args: "ID", min: 1, max: 1, example: "millrace master add master-2", do: masterAdd}),
		a.leaf(spec{name: "remove", aliases: []string{"rm"}, usage: "take a master out of the set: it has no vote and no part of the log any more", args: "ID", min: 1, max: 1, example: "millrace master remove master-2", do: masterRemove}),
		a.leaf(spec{name: "backup", usage: "write the site's state, with the key to its secrets, to a file (- is standard output)", args: "FILE", min: 1, max: 1, example: "millrace master backup millrace.backup", do: masterBackup}),
		a.leaf(spec{name: "restore", usage: "make a master of a backup, in an empty folder, the only one of its site; then run it", args: "FILE", min: 1, max: 1, example: "millrace master restore millrace.backup --dir /var/lib/millrace",
			flags: []cli.Flag{dirFlag(), &cli.StringFlag{Name: "name", Usage: "`NAME` of the node; default: the host's"}}, do: masterRestore}),
		a.leaf(spec{name: "recover", usage: "make a stopped master the only one, when the majority is lost for good; then run it, and never the others", example: "millrace master recover --dir /var/lib/millrace",
			flags: []cli.Flag{dirFlag()}, do: masterRecover}),
		a.leaf(spec{name: "run", usage: "run a master in the foreground; the first start makes the site, or joins one with --join and --token", example: "AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… millrace master run --dir /var/lib/millrace --listen :7400 --advertise 10.0.0.1 --s3 http://minio:9000",
			flags: []cli.Flag{
				dirFlag(),
				&cli.StringFlag{Name: "listen", Usage: "`HOST:PORT` to serve at", Value: ":7400"},
				&cli.StringFlag{Name: "advertise", Usage: "`HOST[:PORT]` by which others reach it"},
				&cli.StringFlag{Name: "raft-listen", Usage: "`HOST:PORT` for masters among themselves", Value: ":7401"},
				&cli.StringFlag{Name: "gossip-listen", Usage: "`HOST:PORT` for gossip, UDP and TCP", Value: ":7402"},
				&cli.StringSliceFlag{Name: "join", Usage: "`URL` of a master of the site to join, at the first start (repeatable)"},
				&cli.StringFlag{Name: "token", Usage: "join `TOKEN` for a master, at the first start; - reads it from standard input, @FILE from a file"},
				&cli.StringFlag{Name: "name", Usage: "`NAME` of the node, at its first start; default: the host's"},
				&cli.StringFlag{Name: "system", Usage: "`URL` of the site's own prefix in the object store, at its first start; default s3://millrace-system/"},
			}, do: masterRun}))
}

func (a *app) workerCommand() *cli.Command {
	return group("worker", "run a worker", "millrace worker --dir /var/lib/millrace --join https://10.0.0.1:7400 --token @token", nil,
		a.leaf(spec{name: "run", usage: "run a worker in the foreground; a token is needed at its first start only", example: "millrace join-token create --role task > token\nmillrace worker --dir /var/lib/millrace --join https://10.0.0.1:7400 --token @token --slots 4",
			flags: []cli.Flag{
				dirFlag(),
				&cli.StringSliceFlag{Name: "join", Usage: "`URL` of a master (repeatable)"},
				&cli.StringFlag{Name: "token", Usage: "join `TOKEN`; - reads it from standard input, @FILE from a file"},
				&cli.IntFlag{Name: "slots", Usage: "attempts at once, `N`; default: one per CPU"},
				&cli.StringFlag{Name: "listen", Usage: "`HOST:PORT` to serve at; default " + workerListen + ", or any free port if another node has that"},
				&cli.StringFlag{Name: "advertise", Usage: "`HOST[:PORT]` by which others reach it"},
				&cli.StringFlag{Name: "gossip-listen", Usage: "`HOST:PORT` for gossip, UDP and TCP; default " + workerGossip + ", or any free port"},
				&cli.StringFlag{Name: "memory", Usage: "`SIZE` for this node and its attempts; default: the machine's"},
				&cli.StringFlag{Name: "name", Usage: "`NAME` of the node; default: the host's"},
			}, do: workerRun}))
}

func (a *app) objectStoreCommand() *cli.Command {
	return a.leaf(spec{name: "object-store", usage: "run the embedded object store in the foreground", example: "millrace object-store --dir /var/lib/millrace/store --listen 127.0.0.1:9000",
		flags: []cli.Flag{dirFlag(), &cli.StringFlag{Name: "listen", Usage: "`HOST:PORT` on loopback", Value: "127.0.0.1:9000"}}, do: objectStoreRun})
}

func dirFlag() cli.Flag {
	return &cli.StringFlag{Name: "dir", Usage: "`DIR` where the node keeps everything"}
}

// roleDir is the folder of a node.
func (c *call) roleDir() (string, error) {
	dir := c.String("dir")
	if dir == "" {
		return "", usagef(c.inv.name()+" --dir DIR", "%s needs --dir DIR, where it keeps everything", c.inv.name())
	}
	return filepath.Abs(dir)
}

// role runs one role until it is told to end: by a signal, or by the end of the
// process that started it (the lifeline).
func (c *call) role(name string, run func(ctx context.Context, dir string, log *zap.Logger) error) error {
	dir, err := c.roleDir()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return usagef("name a folder that can be made: "+c.inv.name()+" --dir DIR", "--dir: %s", err)
	}
	ctx, stop, err := c.lifeline(c.Context.Context)
	if err != nil {
		return err
	}
	defer stop()
	log := newLogger(c.env.Stderr).Named(name)
	defer log.Sync()
	err = run(ctx, dir, log)
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return nil // ended as it was told
	}
	return c.roleFault(c.inv.name(), dir, err)
}

// lifeline ends ctx when the pipe that the starting process holds is closed: whatever way
// it died, nothing that it started outlives it.
func (c *call) lifeline(parent context.Context) (context.Context, func(), error) {
	ctx, cancel := context.WithCancel(parent)
	value := c.env.Getenv(devcluster.LifelineEnv)
	if value == "" {
		return ctx, cancel, nil
	}
	fd, err := strconv.Atoi(value)
	if err != nil || fd < 3 {
		cancel()
		return nil, nil, usagef("unset "+devcluster.LifelineEnv, "%s=%q is no file descriptor", devcluster.LifelineEnv, value)
	}
	// What this process starts must inherit neither the descriptors nor the words.
	syscall.CloseOnExec(fd)
	syscall.CloseOnExec(fd + 1)
	os.Unsetenv(devcluster.LifelineEnv)
	f := os.NewFile(uintptr(fd), "lifeline")
	go func() {
		io.Copy(io.Discard, f) // ends at EOF, or when the process does
		cancel()
	}()
	return ctx, cancel, nil
}

// newLogger writes a line per event for people and log collectors.
func newLogger(w io.Writer) *zap.Logger {
	e := zap.NewProductionEncoderConfig()
	e.EncodeTime = zapcore.ISO8601TimeEncoder
	e.EncodeLevel = zapcore.CapitalLevelEncoder
	e.EncodeDuration = zapcore.StringDurationEncoder
	return zap.New(zapcore.NewCore(zapcore.NewConsoleEncoder(e), zapcore.Lock(zapcore.AddSync(w)), zap.InfoLevel))
}

func masterRun(c *call) error {
	source, err := c.storage()
	if err != nil {
		return err
	}
	token, err := c.secret("token")
	if err != nil {
		return err
	}
	return c.role("master", func(ctx context.Context, dir string, log *zap.Logger) error {
		conf := master.Config{Dir: dir, Listen: c.String("listen"), Advertise: c.String("advertise"), RaftListen: c.String("raft-listen"),
			GossipListen: c.String("gossip-listen"), SystemPrefix: c.String("system"), Join: c.StringSlice("join"), Token: token, Name: c.String("name"), Version: Version, Log: log}
		if source.S3.Endpoint != "" {
			conf.Store = apiStore(source.S3)
		}
		m, err := master.New(conf)
		if err != nil {
			return usagef("millrace master run --help", "%s", err)
		}
		return m.Run(ctx)
	})
}

func workerRun(c *call) error {
	var memory int64
	var err error
	if s := c.String("memory"); s != "" {
		if memory, err = bytesize.Parse(s); err != nil {
			return usagef("--memory 8GiB", "--memory: %s", err)
		}
	}
	if c.IsSet("slots") && c.Int("slots") < 1 {
		return usagef("--slots 4", "--slots %d: at least 1", c.Int("slots"))
	}
	token, err := c.secret("token")
	if err != nil {
		return err
	}
	name := c.String("name")
	if name == "" {
		if name, err = os.Hostname(); err != nil {
			return fmt.Errorf("host name: %w", err)
		}
	}
	join := c.StringSlice("join")
	if len(join) == 0 {
		join = c.servers()
	}
	return c.role("worker", func(ctx context.Context, dir string, log *zap.Logger) error {
		run := func(listen, gossip string) error {
			w, err := worker.New(worker.Config{Dir: dir, Join: join, Token: token, Listen: cmp.Or(c.String("listen"), listen), Advertise: c.String("advertise"),
				GossipListen: cmp.Or(c.String("gossip-listen"), gossip), Slots: c.Int("slots"), MemoryBytes: memory, Name: name, Version: Version, Log: log})
			if err != nil {
				return usagef("millrace worker run --help", "%s", err)
			}
			return w.Run(ctx)
		}
		// A second worker on one machine needs no thought: masters learn from it where it serves.
		err := run(workerListen, workerGossip)
		if errors.Is(err, syscall.EADDRINUSE) && !(c.IsSet("listen") && c.IsSet("gossip-listen")) {
			return run(":0", ":0")
		}
		return err
	})
}

// Where a worker serves if nobody says otherwise.
const (
	workerListen = ":7410"
	workerGossip = ":7412"
)

// secret reads a flag's value that may be - (standard input) or @FILE, so that
// it need not be seen in a list of processes.
func (c *call) secret(flag string) (string, error) {
	value := c.String(flag)
	var data []byte
	var err error
	switch {
	case value == "-":
		data, err = io.ReadAll(io.LimitReader(c.env.Stdin, 64<<10))
	case strings.HasPrefix(value, "@"):
		data, err = os.ReadFile(value[1:])
	default:
		return value, nil
	}
	if err != nil {
		return "", usagef("--"+flag+" @FILE", "--%s: %s", flag, err)
	}
	return strings.TrimSpace(string(data)), nil
}

func objectStoreRun(c *call) error {
	host, _, err := net.SplitHostPort(c.String("listen"))
	if err != nil {
		return usagef("--listen 127.0.0.1:9000", "--listen %s: not of the form HOST:PORT", c.String("listen"))
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return usagef("--listen 127.0.0.1:9000; for storage on the network use MinIO or the like", "--listen %s: the embedded object store speaks plain HTTP, so it serves on loopback only", c.String("listen"))
	}
	return c.role("object-store", func(ctx context.Context, dir string, log *zap.Logger) error {
		folder, err := nodedir.Open(dir, Version)
		if err != nil {
			return err
		}
		defer folder.Close()
		keys, err := devcluster.LoadKeys(filepath.Join(dir, "keys.json"), c.env.Getenv)
		if err != nil {
			return err
		}
		log.Info("object store starts", zap.String("listen", c.String("listen")), zap.String("dir", dir))
		return embeddedstore.Run(ctx, embeddedstore.Config{Dir: dir, Listen: c.String("listen"), AccessKey: keys.AccessKey, SecretKey: keys.SecretKey, Region: "us-east-1"})
	})
}

package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	"millrace/cmd/cli/devcluster"
	"millrace/pkg/api"
	"millrace/pkg/client"
	"millrace/pkg/firstprocess"
	"millrace/pkg/nodedir"
	"millrace/pkg/security"
)

const (
	containerTokenLife  = 72 * time.Hour // so long may the first master be away before nothing can join any more
	containerTokenEvery = 12 * time.Hour
	containerPoll       = 250 * time.Millisecond // for files that another container makes
	containerKeys       = "store/keys.json"      // of the object store, below --secrets
	containerToken      = "token"                // below --secrets and the role: each a volume of its own, which only who needs it mounts
)

func (a *app) containerCommand() *cli.Command {
	secrets := func() cli.Flag {
		return &cli.StringFlag{Name: "secrets", Usage: "`DIR` with the volumes by which containers hand on keys and join tokens: store, master, core, task", Value: "/secrets"}
	}
	dir := func() cli.Flag {
		return &cli.StringFlag{Name: "dir", Usage: "`DIR` where the node keeps everything", Value: "/data"}
	}
	return group("container", "the first process of a container: what docker-compose.yml starts", "millrace container worker --role task", nil,
		a.leaf(spec{name: "minio", usage: "MinIO, under a key that is made at its first start and kept with the secrets", example: "millrace container minio",
			flags: []cli.Flag{secrets(), dir()}, do: containerMinio}),
		a.leaf(spec{name: "master", usage: "a master; the first one makes the site, and tokens for the others", args: "[MASTER-RUN-FLAG…]", max: -1, handsOn: true, example: "millrace container master --first\nmillrace container master -- --keep-jobs 500",
			flags: []cli.Flag{secrets(), dir(),
				&cli.BoolFlag{Name: "first", Usage: "it makes the site, and keeps the join tokens fresh"},
				&cli.StringSliceFlag{Name: "join", Usage: "`URL` of a master (repeatable)", Value: cli.NewStringSlice("https://master1:7400")},
				&cli.StringFlag{Name: "store", Usage: "`URL` of the object store, unless the environment names one (AWS_ENDPOINT_URL)", Value: "http://minio:9000"},
			}, do: containerMaster}),
		a.leaf(spec{name: "worker", usage: "a core or task node", args: "[WORKER-RUN-FLAG…]", max: -1, handsOn: true, example: "millrace container worker --role task -- --slots 2 --leave-on-term",
			flags: []cli.Flag{secrets(), dir(),
				&cli.StringFlag{Name: "role", Usage: "`ROLE`: core or task", Value: "task"},
				&cli.StringSliceFlag{Name: "join", Usage: "`URL` of a master (repeatable)", Value: cli.NewStringSlice("https://master1:7400", "https://master2:7400", "https://master3:7400")},
			}, do: containerWorker}),
		a.leaf(spec{name: "health", usage: "ask the node of this container how it is: exit code 0 if it answers", example: "millrace container health\nmillrace container health --url http://127.0.0.1:9000/minio/health/live",
			flags: []cli.Flag{dir(), &cli.StringFlag{Name: "url", Usage: "`URL` to ask instead, of a server that is not Millrace's"}}, do: containerHealth}),
	)
}

// become runs a program as the one that the container is for, and ends as it does.
func (c *call) become(program string, args, environ []string) error {
	code, err := firstprocess.Run(program, args, environ)
	if err != nil {
		return err
	}
	if code != 0 {
		return silent{code}
	}
	return nil
}

func containerMinio(c *call) error {
	keys, err := devcluster.LoadKeys(filepath.Join(c.String("secrets"), containerKeys), c.env.Getenv)
	if err != nil {
		return err
	}
	return c.become("minio", []string{"server", c.String("dir"), "--address", ":9000"},
		append(os.Environ(), "MINIO_ROOT_USER="+keys.AccessKey, "MINIO_ROOT_PASSWORD="+keys.SecretKey, "MINIO_BROWSER=off"))
}

func containerMaster(c *call) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	dir, secrets := c.String("dir"), c.String("secrets")
	args := []string{"master", "run", "--dir", dir, "--advertise", host, "--name", host}
	environ := os.Environ()
	if c.Bool("first") {
		storage, more, err := c.containerStore()
		if err != nil {
			return err
		}
		args, environ = append(args, storage...), append(environ, more...)
	} else {
		token, err := c.handedOn(filepath.Join("master", containerToken))
		if err != nil {
			return err
		}
		args = append(args, "--token", "@"+token)
		for _, url := range c.StringSlice("join") {
			args = append(args, "--join", url)
		}
	}
	ctx, cancel := context.WithCancel(c.Context.Context)
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		c.keepHandedOn(ctx, dir, secrets)
	}()
	err = c.become(self, append(args, c.after...), environ)
	cancel()
	<-kept
	return err
}

// containerStore is the object store that the first master tells the site of: that of the environment, or the MinIO beside it.
func (c *call) containerStore() (args, environ []string, err error) {
	if cmp.Or(c.env.Getenv("AWS_ENDPOINT_URL_S3"), c.env.Getenv("AWS_ENDPOINT_URL")) != "" {
		return nil, nil, nil
	}
	file, err := c.handedOn(containerKeys)
	if err != nil {
		return nil, nil, err
	}
	keys, err := devcluster.LoadKeys(file, c.env.Getenv)
	if err != nil {
		return nil, nil, err
	}
	return []string{"--s3", c.String("store")}, []string{"AWS_ACCESS_KEY_ID=" + keys.AccessKey, "AWS_SECRET_ACCESS_KEY=" + keys.SecretKey}, nil
}

func containerWorker(c *call) error {
	role := c.String("role")
	if role != "core" && role != "task" {
		return usagef("millrace container worker --role task", "--role %s is not one of core, task", role)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	token, err := c.handedOn(filepath.Join(role, containerToken))
	if err != nil {
		return err
	}
	args := []string{"worker", "run", "--dir", c.String("dir"), "--name", host, "--token", "@" + token}
	for _, url := range c.StringSlice("join") {
		args = append(args, "--join", url)
	}
	return c.become(self, append(args, c.after...), os.Environ())
}

// handedOn waits for a file that another container makes.
func (c *call) handedOn(name string) (path string, err error) {
	path = filepath.Join(c.String("secrets"), name)
	for said := false; ; said = true {
		_, err := os.Stat(path)
		if !errors.Is(err, fs.ErrNotExist) {
			return path, err
		}
		if !said {
			fmt.Fprintf(c.env.Stderr, "waiting for %s\n", path)
		}
		select {
		case <-time.After(containerPoll):
		case <-c.Context.Context.Done():
			return "", context.Canceled
		}
	}
}

// keepHandedOn makes the administrator's context that of this container as soon as there is one and, on the first
// master, keeps join tokens for the other containers fresh, until ctx ends.
func (c *call) keepHandedOn(ctx context.Context, dir, secrets string) {
	said := ""
	var tokens time.Time
	for {
		admin, err := client.ReadContext(filepath.Join(dir, "admin.json"))
		if err == nil {
			err = c.useAsContext(admin)
		}
		if err == nil && c.Bool("first") && time.Since(tokens) >= containerTokenEvery {
			if err = handOnTokens(ctx, admin, secrets); err == nil {
				tokens = time.Now()
			}
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) && err.Error() != said && ctx.Err() == nil {
			said = err.Error()
			fmt.Fprintf(c.env.Stderr, "millrace: %s; it is tried again\n", said)
		}
		select {
		case <-time.After(4 * containerPoll):
		case <-ctx.Done():
			return
		}
	}
}

// useAsContext writes a context, if it is another than the one that is there, and makes it the current one.
func (c *call) useAsContext(admin *client.Context) error {
	home, err := c.home()
	if err != nil {
		return err
	}
	if old, err := client.LoadContext(home, admin.Name); err == nil && old.Certificate == admin.Certificate && strings.Join(old.Servers, " ") == strings.Join(admin.Servers, " ") {
		return nil
	}
	if err := client.SaveContext(home, admin); err != nil {
		return err
	}
	return client.UseContext(home, admin.Name)
}

// handOnTokens makes a token for each role, for as many nodes as there are going to be.
func handOnTokens(ctx context.Context, admin *client.Context, secrets string) error {
	cl, err := client.New(client.Config{Servers: admin.Servers, Credential: admin.Credential(), UserAgent: "millrace/" + Version})
	if err != nil {
		return err
	}
	defer cl.Close()
	for _, role := range []string{"master", "core", "task"} {
		resp, err := cl.API().CreateJoinToken(ctx, connect.NewRequest(&api.CreateJoinTokenRequest{Role: role, TtlMs: containerTokenLife.Milliseconds()}))
		if err != nil {
			return fmt.Errorf("make a join token for %s nodes: %w", role, err)
		}
		if err := nodedir.WriteFile(filepath.Join(secrets, role, containerToken), []byte(resp.Msg.Token+"\n")); err != nil {
			return err
		}
	}
	return nil
}

// containerHealth asks the node at its usual port, as the node itself.
func containerHealth(c *call) error {
	ctx, cancel := context.WithTimeout(c.Context.Context, 5*time.Second)
	defer cancel()
	url, cl := c.String("url"), http.DefaultClient
	if url == "" {
		var err error
		if url, cl, err = ownHealth(c.String("dir")); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return usagef("millrace container health --url http://127.0.0.1:9000/minio/health/live", "--url: %s", err)
	}
	resp, err := cl.Do(req)
	if err != nil {
		return faultf(exitUnreachable, "", "%s", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return faultf(exitFailed, "", "%s: %s", url, resp.Status)
	}
	return nil
}

// ownHealth is where the node of a folder says how it is, and a client that shows the node's own certificate.
func ownHealth(dir string) (url string, cl *http.Client, err error) {
	var id struct{ ID, Role string }
	data, err := os.ReadFile(filepath.Join(dir, "node.json"))
	if err != nil {
		return "", nil, err
	}
	if err := json.Unmarshal(data, &id); err != nil {
		return "", nil, fmt.Errorf("%s: %w", filepath.Join(dir, "node.json"), err)
	}
	files, name, url := []string{"node.crt", "node.key", "ca.crt"}, security.NodeName(id.ID), "https://127.0.0.1"+workerListen+"/v1/health"
	if id.Role == "MASTER" {
		files, name, url = []string{"cert.pem", "key.pem", "ca.pem"}, security.MasterName, "https://127.0.0.1:7400/healthz"
	}
	var credential security.Credential
	for i, into := range []*[]byte{&credential.CertPEM, &credential.KeyPEM, &credential.CAPEM} {
		if *into, err = os.ReadFile(filepath.Join(dir, "pki", files[i])); err != nil {
			return "", nil, err
		}
	}
	config, err := credential.ClientTLS(name)
	if err != nil {
		return "", nil, err
	}
	return url, &http.Client{Transport: &http.Transport{TLSClientConfig: config}}, nil
}

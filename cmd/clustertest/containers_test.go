//go:build cluster && containers

package clustertest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// composed is the site of docker-compose.yml under a project name of its own, on a real engine, with the images of `make images`.
type composed struct {
	t    *testing.T
	file string
}

const composeProject = "millracetest"

func compose(t *testing.T) *composed {
	t.Helper()
	for _, program := range []string{"docker", "docker-compose"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%s is not installed: .ci/dockerd installs and starts what this needs", program)
		}
	}
	file, err := filepath.Abs("../../docker-compose.yml")
	require.NoError(t, err)
	c := &composed{t: t, file: file}
	c.compose("down", "-v", "-t", "1") // of a run that was cut short
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := c.try(nil, "docker-compose", c.args("logs", "--no-color", "--tail", "60")...)
			t.Logf("logs:\n%s", out)
		}
		c.compose("down", "-v", "-t", "1")
	})
	c.compose("up", "-d")
	return c
}

func (c *composed) args(args ...string) []string {
	return append([]string{"-p", composeProject, "-f", c.file}, args...)
}

func (c *composed) try(stdin []byte, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(c.t.Context(), program, args...)
	if c.t.Context().Err() != nil { // in clean-up
		cmd = exec.Command(program, args...)
	}
	if stdin != nil {
		cmd.Stdin = bytes.NewReader(stdin)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", program, strings.Join(args, " "), err, stderr.String())
	}
	return string(out), err
}

func (c *composed) compose(args ...string) string {
	c.t.Helper()
	out, err := c.try(nil, "docker-compose", c.args(args...)...)
	require.NoError(c.t, err)
	return out
}

// on runs millrace in the container of a service, as a user of the page does.
func (c *composed) on(service string, stdin []byte, args ...string) (string, error) {
	return c.try(stdin, "docker-compose", c.args(append([]string{"exec", "-T", service, "millrace"}, args...)...)...)
}

func (c *composed) mr(args ...string) string {
	c.t.Helper()
	out, err := c.on("master1", nil, args...)
	require.NoError(c.t, err)
	return out
}

// running counts the nodes of a role that run, as a master that answers sees it.
func (c *composed) running(role string) (n int, seen string) {
	for _, m := range []string{"master1", "master2", "master3"} {
		out, err := c.on(m, nil, "node", "list", "--json")
		if err != nil {
			seen = err.Error()
			continue
		}
		var nodes []struct{ Role, State, Name string }
		if err := json.Unmarshal([]byte(out), &nodes); err != nil {
			return 0, err.Error()
		}
		for _, node := range nodes {
			if node.Role == role && node.State == "RUNNING" {
				n++
			}
		}
		return n, out
	}
	return 0, seen
}

func (c *composed) waitRunning(role string, want int) {
	c.t.Helper()
	waitFor(c.t, fmt.Sprintf("%d nodes of role %s run", want, role), func() (bool, string) {
		n, seen := c.running(role)
		return n == want, seen
	})
}

// The repository's own docker-compose.yml: the site comes up by itself, grows and shrinks under a running job, and loses a core node
// and the leader without losing anything else.
func TestContainers(t *testing.T) {
	c := compose(t)
	c.waitRunning("MASTER", 3)
	c.waitRunning("CORE", 3)
	c.waitRunning("TASK", 2)

	corpus := sourceOfGo(t)
	c.mr("fs", "mb", "s3://input")
	c.mr("fs", "mb", "s3://output")
	_, err := c.on("master1", corpus, "fs", "put", "-", "s3://input/words.txt")
	require.NoError(t, err)
	c.mr("run", "wordcount", "s3://input/", "s3://output/truth/")
	truth := c.mr("results", "last")
	require.Contains(t, truth, "func\t")

	// A job of many small tasks runs while the site grows and shrinks.
	submitted := c.mr("job", "submit", "wordcount", "--input", "s3://input/", "--output", "s3://output/resized/", "--split-size", "4KiB", "--reduces", "3", "--json")
	var job struct{ ID string }
	require.NoError(t, json.Unmarshal([]byte(submitted), &job))
	c.compose("up", "-d", "--scale", "task=4")
	c.waitRunning("TASK", 4)
	c.compose("up", "-d", "--scale", "task=1")
	c.waitRunning("TASK", 1)
	c.mr("job", "wait", job.ID)
	require.Equal(t, sorted(truth), sorted(c.mr("results", job.ID)))
	list := c.mr("node", "list")
	require.NotContains(t, list, "LOST", "who was scaled away has left for good")

	// What is in the block store is there without one of the core nodes, and a job ends without it.
	c.mr("fs", "cp", "s3://input/words.txt", "hdfs:///words.txt")
	c.docker("kill", "core2")
	c.mr("run", "wordcount", "hdfs:///words.txt", "s3://output/without/")
	require.Equal(t, sorted(truth), sorted(c.mr("results", "last")))
	c.docker("start", "core2")
	c.waitRunning("CORE", 3)

	// So it is without the leader, whichever it is.
	leader := c.leader()
	c.docker("kill", leader)
	other := "master1"
	if leader == other {
		other = "master2"
	}
	waitFor(t, "another master leads, and has the administrator's context", func() (bool, string) {
		out, err := c.on(other, nil, "node", "list")
		if err != nil && other != "master3" {
			out, err = c.on("master3", nil, "node", "list")
			if err == nil {
				other = "master3"
			}
		}
		return err == nil, fmt.Sprint(out, err)
	})
	_, err = c.on(other, nil, "run", "wordcount", "s3://input/", "s3://output/led/")
	require.NoError(t, err)
	c.docker("start", leader)
	c.waitRunning("MASTER", 3)

	c.secretsAreTheirOwners()
	c.compose("down", "-v", "-t", "1")
	c.followPage()
}

// docker does something to the container of a service.
func (c *composed) docker(what, service string) {
	c.t.Helper()
	id := strings.TrimSpace(c.compose("ps", "-q", service))
	_, err := c.try(nil, "docker", what, id)
	require.NoError(c.t, err)
}

func (c *composed) leader() string {
	c.t.Helper()
	var nodes []struct {
		Name   string
		Leader bool
	}
	require.NoError(c.t, json.Unmarshal([]byte(c.mr("node", "list", "--json")), &nodes))
	for _, n := range nodes {
		if n.Leader {
			return n.Name
		}
	}
	c.t.Fatal("nobody leads")
	return ""
}

// secretsAreTheirOwners: a task node sees neither the object store's key nor the tokens of other roles, and no password is a word of the file.
func (c *composed) secretsAreTheirOwners() {
	c.t.Helper()
	text, err := os.ReadFile(c.file)
	require.NoError(c.t, err)
	require.NotContains(c.t, strings.ToLower(string(text)), "password:")
	id := strings.Fields(c.compose("ps", "-q", "task"))[0]
	mounts, err := c.try(nil, "docker", "inspect", "-f", "{{range .Mounts}}{{.Destination}} {{end}}", id)
	require.NoError(c.t, err)
	require.ElementsMatch(c.t, []string{"/data", "/secrets/task"}, strings.Fields(mounts))
}

// sourceOfGo is some megabytes of real text.
func sourceOfGo(t *testing.T) []byte {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	require.NoError(t, err)
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(root)), "src", "net", "*", "*.go"))
	require.NoError(t, err)
	var all bytes.Buffer
	for _, f := range files {
		data, err := os.ReadFile(f)
		require.NoError(t, err)
		all.Write(data)
	}
	require.Greater(t, all.Len(), 1<<20)
	return all.Bytes()
}

// followPage runs every command of docs/containers.md, in their order, as somebody in a checkout would; the site is up all the while.
func (c *composed) followPage() {
	c.t.Helper()
	page, err := os.ReadFile("../../docs/containers.md")
	require.NoError(c.t, err)
	for _, command := range commandsOf(c.t, "docs/containers.md", string(page)) {
		if command.text == "make images" { // what runs this test has done so
			continue
		}
		cmd := exec.CommandContext(c.t.Context(), "sh", "-c", command.text)
		cmd.Dir, cmd.Env = filepath.Dir(c.file), append(os.Environ(), "COMPOSE_PROJECT_NAME="+composeProject)
		out, err := cmd.CombinedOutput()
		require.NoError(c.t, err, "%s\n%s", command, out)
		if strings.HasPrefix(command.text, "docker-compose up -d") {
			c.waitRunning("MASTER", 3)
			c.waitRunning("CORE", 3)
		}
	}
}

// sorted are the lines of a result, in one order.
func sorted(text string) []string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	slices.Sort(lines)
	return lines
}

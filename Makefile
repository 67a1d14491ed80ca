# For habit's sake: the work is done by ./run, ./check and the bench driver.
.PHONY: run check bench

run:
	@./run

check:
	@./check

bench: build/build.ninja
	@ninja -C build bench

build/build.ninja:
	@./run --deps
	@meson setup build --buildtype=release

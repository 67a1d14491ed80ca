# For habit's sake: the work is done by ./run, ./check and the bench driver.
.PHONY: run check bench chaos

run:
	@./run

check:
	@./check

bench: build/build.ninja
	@ninja -C build bench

# 200 kills of the server under load, then 100 cuts of a subscriber: about ten minutes.
chaos: build/build.ninja
	@ninja -C build weft weftctl
	@node tools/chaos/kill.mjs --kills 200 --weft build/weft
	@node tools/chaos/converge.mjs --weft build/weft

build/build.ninja:
	@./run --deps
	@meson setup build --buildtype=release

console.log("probe step:", ...process.argv.slice(2));
